"""Packed linear layers, and the linear layers of a model that a method may pack or prune."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.ops.experts import expert_shapes


class _Product(torch.autograd.Function):
    """The packed layer's product forward, its dequantized weight's backward; keeps no dense weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: PackedLinear) -> Tensor:
        ctx.layer = layer
        y = layer.product(x)
        return y.clone() if y._is_view() else y  # adapters (AdaLoRA) add to it in place, not allowed on views

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        return gradient @ ctx.layer.dequantize().to(gradient.dtype), None


class PackedLinear(nn.Linear):
    """A linear layer that stores codes in buffers; the weight exists only while it is used.

    It is an `nn.Linear` so that adapters and hooks find it, but has no weight parameter: `weight` is
    computed on each access and writing to it is lost.
    Shapes: weight is out x in; x is (..., in)
    """

    def __init__(self, in_features: int, out_features: int, bias: Tensor | None = None) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = in_features, out_features
        kept = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.register_parameter("bias", kept)

    @abstractmethod
    def dequantize(self) -> Tensor:
        """The weight (out x in), float32."""
        raise NotImplementedError

    def product(self, x: Tensor) -> Tensor:
        """x W^T in the dtype of x; a layout that can be multiplied as it is packed says how."""
        return F.linear(x, self.dequantize().to(x.dtype))

    def stored_bits(self) -> int:
        """Bits of everything stored for the weight: codes, scales, zeros (not the bias)."""
        return sum(b.numel() * b.element_size() * 8 for b in self.buffers(recurse=False))

    def num_weights(self) -> int:
        """Weights represented."""
        return self.in_features * self.out_features

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The dequantized weight."""
        return self.dequantize()

    def forward(self, x: Tensor) -> Tensor:
        """y = x W^T + b, gradients with respect to x only."""
        if torch.is_grad_enabled() and x.requires_grad:
            y: Tensor = _Product.apply(x, self)  # type: ignore[no-untyped-call]
        else:
            y = self.product(x)
        return y if self.bias is None else y + self.bias.to(y.dtype)


def linear_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The unpacked linear layers of a causal model by name, the output head left out.

    Hugging Face's Conv1D (GPT-2) counts: a linear layer that stores its weight as in x out.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        name: module
        for name, module in model.named_modules()
        if module is not head
        and not isinstance(module, PackedLinear)
        and (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D")
    }


def weight_matrix(layer: nn.Module) -> Tensor:
    """The weight of a linear layer as out x in."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T if type(layer).__name__ == "Conv1D" else weight.detach()


def packed_shapes(model: nn.Module) -> dict[str, tuple[int, int, int]]:
    """(matrices, out, in) of everything a quantizer packs, by name; fused experts count as they will be."""
    single = {name: (1, *weight_matrix(layer).shape) for name, layer in linear_layers(model).items()}
    return {**single, **expert_shapes(model)}  # type: ignore[dict-item]


def replace_module(model: nn.Module, name: str, new: nn.Module) -> None:
    """Put `new` where the module called `name` stands."""
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, new)
