"""The type of position and head indices in predicates."""

from torch import Tensor

Index = Tensor
"""Integer tensors of positions or heads that broadcast together."""
