"""Gradient norms and clipping where weights may be split over processes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


def local(tensor: Tensor) -> Tensor:
    """This process's share of a tensor."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor  # type: ignore[no-any-return,operator]


def gradients(parameters: Iterable[nn.Parameter]) -> list[Tensor]:
    """The gradients there are."""
    return [parameter.grad for parameter in parameters if parameter.grad is not None]


def multiply(parameters: Iterable[nn.Parameter], factor: Tensor) -> None:
    """Scale gradients in place."""
    found = [local(gradient) for gradient in gradients(parameters)]
    if found:
        torch._foreach_mul_(found, factor.to(found[0].dtype))


def gradient_norm(parameters: Iterable[nn.Parameter], *, split_over: Any) -> Tensor:
    """L2 norm of all gradients, over all processes that hold a part of the weights.

    A model whose layers are spread over processes names their group in `split_over`.
    """
    found: dict[Any, list[Tensor]] = {}
    for gradient in gradients(parameters):
        # Whole tensors, and those split over each grid, have a norm of their own.
        found.setdefault(getattr(gradient, "device_mesh", None), []).append(gradient)
    parts: list[Any] = [torch.nn.utils.get_total_norm(group) for group in found.values()]
    whole: list[Tensor] = [part.full_tensor() if hasattr(part, "full_tensor") else part for part in parts]
    if len(whole) == 1 and split_over is None:
        return whole[0]
    square = sum((norm.square() for norm in whole), torch.zeros(()))
    if split_over is not None:
        dist.all_reduce(square, group=split_over)
    return square.sqrt()


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale gradients down to a maximum norm; returns the norm before."""
    parameters = list(model.parameters())  # walking the modules costs as much as scaling a small model
    norm = gradient_norm(parameters, split_over=getattr(model, "split_over", None))
    multiply(parameters, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm
