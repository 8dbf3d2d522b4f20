"""Proof of what the model axes did: kernels that really ran, bytes that a cached token really takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile

from harness.method import Choice

_KERNELS = ("scaled_dot_product", "flex_attention")


@torch.no_grad()
def model_effects(model: nn.Module, choices: Mapping[str, Choice], *, length: int = 16) -> dict[str, Any]:
    """{"attention=<name>": {kernels, cache_bytes_per_token, parameters}} from one short pass.

    Units: bytes over all layers
    """
    training, device = model.training, next(model.parameters()).device
    ids = torch.zeros(1, length, dtype=torch.long, device=device)
    activities = [ProfilerActivity.CPU]
    model.eval()
    try:
        with profile(activities=activities) as recorded:
            cache = model(ids, use_cache=True).past_key_values
    finally:
        model.train(training)
    kernels = {event.key for event in recorded.key_averages() if any(name in event.key for name in _KERNELS)}
    kept = sum(_bytes(layer) for layer in getattr(cache, "layers", ()))
    attention = choices["attention"].method.name
    return {
        f"attention={attention}": {
            "kernels": sorted(name.removeprefix("aten::") for name in kernels),
            "cache_bytes_per_token": kept / length,
        }
    }


def _bytes(layer: Any) -> int:
    """Bytes a cache layer holds for the tokens it has seen."""
    held = [value for value in vars(layer).values() if isinstance(value, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)
