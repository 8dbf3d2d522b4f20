"""Proof of what the model axes did, measured on the model itself in passes of a few tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from harness.method import Choice

_KERNELS = ("scaled_dot_product", "flex_attention")


@torch.no_grad()
def model_effects(model: nn.Module, choices: Mapping[str, Choice], *, length: int = 16) -> dict[str, Any]:
    """{"attention=<name>": {kernels, cache_bytes_per_token}, "norm=<name>": ...}, one for each choice.

    Units: bytes over all layers; weights counted; differences between logits
    """
    training = model.training
    model.eval()
    try:
        return {
            f"{axis}={choice.method.name}": _MEASURES[axis](model, length) for axis, choice in choices.items()
        }
    finally:
        model.train(training)


def _attention(model: nn.Module, length: int) -> dict[str, Any]:
    """Kernels that really ran, bytes that a cached token really takes."""
    ids = torch.zeros(1, length, dtype=torch.long, device=next(model.parameters()).device)
    with profile(activities=[ProfilerActivity.CPU]) as recorded:
        cache = model(ids, use_cache=True).past_key_values
    kernels = {event.key for event in recorded.key_averages() if any(name in event.key for name in _KERNELS)}
    kept = sum(_bytes(layer) for layer in getattr(cache, "layers", ()))
    return {
        "kernels": sorted(name.removeprefix("aten::") for name in kernels),
        "cache_bytes_per_token": kept / length,
    }


def _norm(model: nn.Module, length: int) -> dict[str, Any]:
    """What the norms are and hold."""
    found = list(_norms(model))
    return {"modules": sorted({type(norm).__name__ for norm in found}), "weights": _weights(*found)}


def _norm_position(model: nn.Module, length: int) -> dict[str, Any]:
    """How often one pass normalises."""
    calls = 0

    def count(*given: Any) -> None:
        nonlocal calls
        calls += 1

    hooks = [norm.register_forward_hook(count) for norm in _norms(model)]
    try:
        _logits(model, _tokens(model, length))
    finally:
        for hook in hooks:
            hook.remove()
    return {"norms_per_pass": calls}


def _feed_forward(model: nn.Module, length: int) -> dict[str, Any]:
    """What the feed-forward layers are and hold."""
    found = [block.mlp for block in _blocks(model)]
    return {"modules": sorted({type(layer).__name__ for layer in found}), "weights": _weights(*found)}


def _position(model: nn.Module, length: int) -> dict[str, Any]:
    """How far the last token's logits move where the tokens before it are read in reverse."""
    ids_BT = _tokens(model, length)
    turned_BT = torch.cat([ids_BT[:, :-1].flip(1), ids_BT[:, -1:]], 1)
    moved = _logits(model, ids_BT)[:, -1] - _logits(model, turned_BT)[:, -1]
    return {"order_moves_logits": float(moved.abs().max())}


def _architecture(model: nn.Module, length: int) -> dict[str, Any]:
    """Weights of an encoder, and whether the first token reads the last."""
    ids_BT = _tokens(model, length)
    other_BT = ids_BT.clone()
    other_BT[:, -1] = ids_BT[:, 0]
    moved = _logits(model, ids_BT)[:, 0] - _logits(model, other_BT)[:, 0]
    encoder = getattr(_transformer(model), "encoder", None)
    return {
        "encoder_weights": 0 if encoder is None else _weights(encoder),
        "reads_ahead": bool(moved.abs().max() > 0),
    }


_MEASURES: dict[str, Callable[[nn.Module, int], dict[str, Any]]] = {
    "architecture": _architecture,
    "attention": _attention,
    "position": _position,
    "norm": _norm,
    "norm_position": _norm_position,
    "feed_forward": _feed_forward,
}


def _transformer(model: nn.Module) -> nn.Module:
    return model.get_submodule("model")


def _blocks(model: nn.Module) -> Iterator[Any]:
    from harness.model.blocks import Block

    return (module for module in model.modules() if isinstance(module, Block))


def _norms(model: nn.Module) -> Iterator[nn.Module]:
    """Every norm: of the blocks, and where a stack ends with one."""
    from harness.model.blocks import Stack

    for block in _blocks(model):
        for name in ("attn_norms", "cross_norms", "mlp_norms"):
            yield from getattr(block, name, ())
    stacks = (module for module in model.modules() if isinstance(module, Stack))
    yield from (stack.norm for stack in stacks if not isinstance(stack.norm, nn.Identity))


def _tokens(model: nn.Module, length: int) -> Tensor:
    """Different tokens, as far as the table has them (1 x T)."""
    table = model.get_submodule("model.embed_tokens")
    assert isinstance(table, nn.Embedding)
    return torch.arange(length, device=table.weight.device)[None] % table.num_embeddings


def _logits(model: nn.Module, ids_BT: Tensor) -> Tensor:
    return model(ids_BT, use_cache=False).logits.float()  # type: ignore[no-any-return]


def _weights(*modules: nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def _bytes(layer: Any) -> int:
    """Bytes a cache layer holds for the tokens it has seen."""
    held = [value for value in vars(layer).values() if isinstance(value, Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in held)
