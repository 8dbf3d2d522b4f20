"""Effect proofs: what a method measurably changed; one that changed nothing is an error."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import EffectError
from harness.ops.packed_linear import PackedLinear


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """What can be told of a model without running it."""

    modules: dict[str, str]
    """Class of each module by name."""
    parameters: int
    trainable: int
    content: str
    """Hash of the parameters' names, shapes and sums."""
    inverse_frequencies: str
    """Hash of the rotary inverse frequencies; empty where the model has none."""
    attention: str
    """Attention implementation the config names."""
    bits: dict[str, float]
    """Bits stored for each weight of packed layers, by layer."""


def tensor_hash(tensors: Mapping[str, Tensor]) -> str:
    """16 hex digits of names, shapes, sums and norms in float64; the tensors are read once, not copied."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        if tensor.device.type != "meta" and tensor.numel():
            values = torch.stack([tensor.sum(dtype=torch.float64), tensor.float().norm().double()])
            digest.update(values.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def snapshot(model: nn.Module) -> Snapshot:
    """A model's state before or after a method acts."""
    parameters = dict(model.named_parameters())
    rotary = {name: b for name, b in model.named_buffers() if "inv_freq" in name}
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    return Snapshot(
        modules={name: type(module).__name__ for name, module in model.named_modules()},
        parameters=sum(p.numel() for p in parameters.values()),
        trainable=sum(p.numel() for p in parameters.values() if p.requires_grad),
        content=tensor_hash(parameters),
        inverse_frequencies=tensor_hash(rotary) if rotary else "",
        attention=str(getattr(getattr(model, "config", None), "_attn_implementation", "") or ""),
        bits={name: layer.stored_bits() / layer.num_weights() for name, layer in packed.items()},
    )


def changes(before: Snapshot, after: Snapshot) -> dict[str, Any]:
    """What differs between two snapshots; empty where nothing does."""
    found: dict[str, Any] = {}
    swapped = {
        name: kind
        for name, kind in after.modules.items()
        if name in before.modules and before.modules[name] != kind
    }
    added = [name for name in after.modules if name not in before.modules]
    if swapped:
        found["modules_swapped"] = len(swapped)
        found["swapped_for"] = sorted(set(swapped.values()))
    if added:
        found["modules_added"] = len(added)
    if before.trainable != after.trainable:
        found["trainable_parameters"] = after.trainable
    if before.inverse_frequencies != after.inverse_frequencies:
        found["inverse_frequencies"] = after.inverse_frequencies
    if before.attention != after.attention:
        found["attention"] = after.attention
    if before.content != after.content:
        found["weights"] = after.content
    if before.bits != after.bits:
        found["bits_per_weight"] = sum(after.bits.values()) / max(1, len(after.bits))
    return found


def prove(before: Snapshot, after: Snapshot, *, what: str) -> dict[str, Any]:
    """The measured effect of a method, for the record.

    Raises: EffectError if nothing changed; `what` names the method (`peft=lora`)
    """
    found = changes(before, after)
    if not found:
        raise EffectError(
            f"{what} was asked for and changed nothing: no module, trainable parameter, weight, rotary "
            f"frequency or bit differs (the model has {len(after.modules)} modules)"
        )
    return found
