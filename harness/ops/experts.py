"""Experts of a mixture that Hugging Face keeps in one 3-D parameter, as a linear layer each, and back.

Shapes: E experts; fused weights E x out x in, E x in x out where the class is transposed; x tokens x in
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import IncompatibleError

PROJECTIONS = ("gate_up_proj", "up_proj", "down_proj")
"""Parameters that transformers' `use_experts_implementation` knows."""


class UnfusedExperts:
    """Mixed into the class of fused experts, whose projections have become lists of linear layers."""

    def forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Each expert on the tokens that chose it, weighted and summed, as the class itself computes it."""
        first = self.gate_up_proj if self.has_gate else self.up_proj
        output = torch.zeros_like(hidden_states)
        for expert in top_k_index.unique().tolist():
            if expert >= self.num_experts:  # transformers' mark of an expert that lies elsewhere
                continue
            token, place = torch.where(top_k_index == expert)
            inner = first[expert](hidden_states[token])
            inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
            y = self.down_proj[expert](inner)
            if self.has_post_expert_norm:
                y = self.post_expert_norm(y)
            weighted = y * top_k_weights[token, place, None]
            output = output.index_add(0, token, weighted.to(output.dtype))
        return output


def fused_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that hold several matrices: experts, whichever way their class computes them."""
    return {
        f"{name}.{kind}".removeprefix("."): parameter
        for name, module in model.named_modules()
        if not isinstance(module, nn.modules.conv._ConvNd)
        for kind, parameter in module.named_parameters(recurse=False)
        if parameter.ndim == 3 and min(parameter.shape) > 1 and parameter.is_floating_point()
    }


def can_unfuse(module: nn.Module) -> bool:
    """Whether the module has the layout and the attributes of transformers' experts."""
    return hasattr(module, "is_transposed") and hasattr(module, "has_gate") and hasattr(module, "down_proj")


def expert_shapes(model: nn.Module) -> dict[str, tuple[int, int, int]]:
    """(experts, out, in) of each fused projection by name."""
    found = {}
    for name, parameter in fused_parameters(model).items():
        owner: Any = model.get_submodule(name.rpartition(".")[0])
        if can_unfuse(owner):
            count, rows, columns = parameter.shape
            found[name] = (count, columns, rows) if owner.is_transposed else (count, rows, columns)
    return found


def unknown_layout(model: nn.Module) -> str | None:
    """Why experts of the model cannot be made linear layers; None where they can, or where there are none."""
    for name, parameter in fused_parameters(model).items():
        owner_name, _, kind = name.rpartition(".")
        owner = model.get_submodule(owner_name)
        if not can_unfuse(owner) or kind not in PROJECTIONS:
            shape = " x ".join(map(str, parameter.shape))
            return (
                f"{name} of {type(owner).__name__} holds {shape} weights in one parameter, in a layout that "
                "is not known, and would stay as it is; choose a model whose "
                "experts are linear layers or laid out as transformers' Mixtral has them"
            )
    return None


def unfuse_experts(model: nn.Module) -> None:
    """Give every expert linear layers of its own, in place: `experts.down_proj.3`, say.

    Raises: IncompatibleError for a model whose experts are kept another way
    """
    message = unknown_layout(model)
    if message is not None:
        raise IncompatibleError(message)
    for name in fused_parameters(model):
        owner_name, _, kind = name.rpartition(".")
        owner: Any = model.get_submodule(owner_name)
        weight, bias = getattr(owner, kind), getattr(owner, f"{kind}_bias", None)
        delattr(owner, kind)
        if bias is not None:
            delattr(owner, f"{kind}_bias")
        setattr(owner, kind, nn.ModuleList(_layers(weight, bias, transposed=owner.is_transposed)))
        if not isinstance(owner, UnfusedExperts):
            fused = type(owner)
            owner.__class__ = type(f"Unfused{fused.__name__}", (UnfusedExperts, fused), {"fused": fused})


def fuse_experts(model: nn.Module) -> None:
    """Undo `unfuse_experts` once the layers are dense again, in place."""
    for owner in list(model.modules()):
        if not isinstance(owner, UnfusedExperts):
            continue
        experts: Any = owner
        for kind in PROJECTIONS:
            layers = getattr(experts, kind, None)
            if not isinstance(layers, nn.ModuleList):
                continue
            dense: list[Any] = list(layers)
            weight = torch.stack([e.weight.T if experts.is_transposed else e.weight for e in dense])
            delattr(experts, kind)
            setattr(experts, kind, nn.Parameter(weight, requires_grad=False))
            if dense[0].bias is not None:
                bias = torch.stack([layer.bias for layer in dense])
                setattr(experts, f"{kind}_bias", nn.Parameter(bias, requires_grad=False))
        experts.__class__ = experts.fused


def _layers(weight: nn.Parameter, bias: nn.Parameter | None, *, transposed: bool) -> list[nn.Linear]:
    """A linear layer for each matrix; their weights are views where they lie as a linear layer's do."""
    found = []
    for number, matrix in enumerate(weight.detach()):
        rows = matrix.T.contiguous() if transposed else matrix
        with torch.device("meta"):
            layer = nn.Linear(rows.shape[1], rows.shape[0], bias=bias is not None)
        layer.weight = nn.Parameter(rows, requires_grad=weight.requires_grad)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach()[number], requires_grad=bias.requires_grad)
        found.append(layer)
    return found
