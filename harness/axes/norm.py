"""Norm: the normalisation layer."""

from __future__ import annotations

from abc import abstractmethod

from torch import nn

from harness.method import Method
from harness.spec import ModelSpec


class Norm(Method):
    """Builds normalisation modules; parameters are called `weight` and, where there is one, `bias`.

    Shapes: a module maps B...D to B...D over the last dimension
    """

    axis = "norm"
    default = "rmsnorm"

    @abstractmethod
    def build(self, dim: int, spec: ModelSpec) -> nn.Module:
        """A module over the last dimension, of width `dim`."""
        raise NotImplementedError

    @staticmethod
    def has_bias(spec: ModelSpec) -> bool:
        """Whether norms that can carry a bias do."""
        return spec.bias if spec.norm_bias is None else spec.norm_bias
