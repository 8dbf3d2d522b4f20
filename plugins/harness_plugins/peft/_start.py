"""Adapters that start from singular vectors: the two factors, and how they are put on a layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


def factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The nearest product B A of a rank, each factor with the root of the singular values.

    Shapes: out x in -> A rank x in, B out x rank
    Error: that of a singular value decomposition in the matrix's precision
    """
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    root = values[:rank].sqrt()
    return root[:, None] * right[:rank], left[:, :rank] * root


def adapted_layers(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The peft library's LoRA layers, by the names that their layers had in the model."""
    from peft.tuners.lora import LoraLayer

    for name, module in model.base_model.model.named_modules():  # type: ignore[union-attr]
        if isinstance(module, LoraLayer):
            yield name, module
