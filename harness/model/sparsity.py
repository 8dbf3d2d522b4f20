"""How many of a model's weights are zero, packed or not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from harness.ops.experts import expert_shapes
from harness.ops.packed_linear import PackedLinear, linear_layers, weight_matrix


def weights_by_layer(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The linear layers' weights as they compute, one layer at a time; fused experts are one layer.

    Shapes: out x in, or experts x out x in
    """
    for name, layer in linear_layers(model).items():
        yield name, weight_matrix(layer)
    for name, module in model.named_modules():
        if isinstance(module, PackedLinear):
            yield name, module.dequantize()
    for name in expert_shapes(model):
        owner: Any = model.get_submodule(name.rpartition(".")[0])
        weight = model.get_parameter(name).detach()
        yield name, weight.mT if owner.is_transposed else weight


def sparsity(model: nn.Module) -> float:
    """Share of the linear layers' weights that are exactly zero."""
    zeros, weights = 0, 0
    for _, weight in weights_by_layer(model):
        zeros, weights = zeros + int((weight == 0).sum()), weights + weight.numel()
    return zeros / max(1, weights)
