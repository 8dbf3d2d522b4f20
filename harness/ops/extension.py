"""Rotary modules of any model, ours or Hugging Face's: read, replace, and follow the length.

Shapes: inv_freq R/2 inverse frequencies in radians per position, R = rotated share of a head
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import IncompatibleError

FOLLOWING = frozenset({"dynamic", "longrope"})
"""Kinds of rotary positions that transformers computes anew in every forward pass."""
LOCAL = "sliding_attention"
"""Layers of this type never meet distances beyond their window, so no context method stretches them."""
_SUFFIX = "_inv_freq"


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary parameters of a model, as a scaling method receives and returns them.

    Shapes: inv_freq is R/2 inverse frequencies in radians per position
    """

    inv_freq: Tensor
    base: float
    head_dim: int
    max_length: int
    """Length the model was trained on, in tokens."""
    attention_factor: float = 1.0
    """Multiplies cos and sin (YaRN's temperature)."""

    def stretched_base(self, factor: float) -> float:
        """The base with which the slowest rotation is `factor` times slower and the fastest as it is (NTK).

        Raises: IncompatibleError where a head has one rotation, which would be both
        """
        if self.head_dim < 4:
            raise IncompatibleError(
                "heads have one rotation, which NTK's scaling would both keep and slow; use "
                "context=position_interpolation, or wider heads"
            )
        return float(self.base * factor ** (self.head_dim / (self.head_dim - 2)))

    def rebased(self, base: float) -> Rotary:
        """These frequencies with another base, whatever scaling they have already.

        theta_i = base^(-2i/R) times anything becomes base'^(-2i/R) times the same
        """
        pair = torch.arange(len(self.inv_freq), dtype=torch.float64, device=self.inv_freq.device)
        moved = self.inv_freq.double() * (base / self.base) ** (-2 * pair / self.head_dim)
        return replace(self, base=base, inv_freq=moved.to(self.inv_freq.dtype))


Scale = Callable[[Rotary, int], Rotary]
"""(parameters, length in tokens) -> parameters for that length."""


@dataclass(frozen=True, kw_only=True)
class RotarySet:
    """One set of frequencies of a rotary module; some models have one for each type of layer."""

    module: Any
    layer_type: str | None = None

    def attribute(self, name: str) -> str:
        """The name of an attribute of this set, e.g. `full_attention_inv_freq`."""
        return name if self.layer_type is None else f"{self.layer_type}_{name}"

    @property
    def inv_freq(self) -> Tensor:
        found: Tensor = getattr(self.module, self.attribute("inv_freq"))
        return found

    @property
    def follows_length(self) -> bool:
        """Whether the module itself recomputes these frequencies by the length at hand."""
        if getattr(self.module, "follows_length", False):  # a position scheme of ours
            return True
        kind = getattr(self.module, "rope_type", "")
        kind = kind.get(self.layer_type, "") if isinstance(kind, dict) else kind
        return kind in FOLLOWING

    def read(self, *, max_length: int) -> Rotary:
        """Its parameters."""
        inv_freq = self.inv_freq
        rotated = 2 * inv_freq.numel()
        # theta_1 = base^(-2/R), whatever the library calls its base.
        base = float(inv_freq[1].double()) ** (-rotated / 2) if inv_freq.numel() > 1 else 10000.0
        stated = getattr(getattr(self.module, "config", None), "base", self._stated().get("rope_theta"))
        return Rotary(
            inv_freq=inv_freq.detach().clone(),
            base=base if stated is None else float(stated),
            head_dim=rotated,
            max_length=max_length,
            attention_factor=float(getattr(self.module, self._factor, 1.0)),
        )

    def write(self, rotary: Rotary) -> None:
        """Replace them."""
        frequencies = rotary.inv_freq.to(self.inv_freq.device, torch.float32)
        setattr(self.module, self.attribute("inv_freq"), frequencies)
        original = self.attribute("original_inv_freq")
        if hasattr(self.module, original):
            setattr(self.module, original, frequencies.clone())
        setattr(self.module, self._factor, rotary.attention_factor)
        if hasattr(self.module, "_last"):
            self.module._last = None  # our module keeps the cosines of its last call

    @property
    def _factor(self) -> str:
        own = hasattr(self.module, "attention_factor")
        return "attention_factor" if own else self.attribute("attention_scaling")

    def _stated(self) -> dict[str, Any]:
        config = getattr(self.module, "config", None)
        found = getattr(config, "rope_parameters", None) or {}
        if self.layer_type is not None:
            found = found.get(self.layer_type) or {}
        return found if isinstance(found, dict) else {}


def rotary_sets(model: nn.Module) -> list[RotarySet]:
    """The frequencies of layers that read far, module by module and type by type.

    Raises: IncompatibleError where there are none, or where the model changes them itself
    """
    found: list[RotarySet] = []
    near = [id(module) for stack in model.modules() for module in _near(stack)]
    for module in model.modules():
        if isinstance(getattr(module, "inv_freq", None), Tensor):
            found += [] if id(module) in near else [RotarySet(module=module)]
            continue
        names = [name for name, _ in module.named_buffers(recurse=False) if name.endswith(_SUFFIX)]
        types = [name.removesuffix(_SUFFIX) for name in names if "original" not in name]
        far = [name for name in types if name != LOCAL] or types
        found += [RotarySet(module=module, layer_type=name) for name in far]
    config = getattr(model, "config", None)
    if not found or getattr(config, "alibi", False):  # Falcon's rotations stand idle beside its biases
        raise IncompatibleError(
            f"{type(model).__name__} has no rotary position embedding, which this context method changes; "
            "use a model with rotary positions (position=rope or xpos), or context=direct_finetune"
        )
    if any(each.follows_length for each in found):
        raise IncompatibleError(
            f"the rotary positions of {type(model).__name__} follow the length by themselves "
            f"(rope_type {' or '.join(sorted(FOLLOWING))}), which would undo this context method; use "
            "context=direct_finetune, or a checkpoint without that scaling"
        )
    return found


def _near(stack: Any) -> list[nn.Module]:
    """Position schemes that only layers with a window have, in a model of ours where others read far."""
    layers = zip(getattr(stack, "layers", ()), getattr(stack, "position_of_layer", ()), strict=False)
    reads = [(at, layer.self_attn.reach is None) for layer, at in layers]
    far = {at for at, reads_far in reads if reads_far}
    return [stack.position_at(at) for at in {at for at, _ in reads} - far] if far else []


def rotary_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that hold inverse frequencies.

    Raises: IncompatibleError where there is none
    """
    return list({id(each.module): each.module for each in rotary_sets(model)}.values())


LENGTHS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
"""What configs call the longest sequence that a model reads."""


def stated_length(model: Any) -> int | None:
    """The longest sequence that a model's config says it reads, in tokens; None where it says nothing."""
    config = getattr(model, "config", None)
    stated = (getattr(config, name, None) for name in LENGTHS)
    return next((int(value) for value in stated if value), None)


def trained_length(model: nn.Module) -> int:
    """Tokens the model was trained on, whatever context methods were applied and saved since.

    Raises: IncompatibleError where its config does not say
    """
    now = getattr(model, "context_length", None)  # set by a method applied in this process
    found = now or getattr(model.config, "trained_length", None) or stated_length(model)
    if not found:
        raise IncompatibleError(
            f"the config of this {type(model).__name__} does not say on how many tokens it was trained, "
            "which a context method multiplies; add max_position_embeddings to its config.json, or use "
            "context=none"
        )
    return int(found)  # type: ignore[call-overload, no-any-return]


def set_length(model: nn.Module, length: int) -> None:
    """Make every tool that asks the config see the longer context."""
    config: Any = model.config
    if getattr(config, "trained_length", None) is None:
        config.trained_length = trained_length(model)
    if getattr(config, "max_seq_len", None):  # MPT's biases are made for so many tokens
        config.max_seq_len = length
    config.max_position_embeddings = length
    spec = getattr(config, "spec", None)
    if isinstance(spec, dict) and "max_length" in spec:
        spec["max_length"] = length
    model.context_length = length  # type: ignore[assignment]


def rescale(model: nn.Module, scale: Scale, *, length: int) -> None:
    """Replace the frequencies of all layers that read far by those for `length` tokens."""
    for each in rotary_sets(model):
        each.write(scale(each.read(max_length=trained_length(model)), length))


def rescale_dynamically(model: nn.Module, scale: Scale) -> None:
    """Let frequencies follow the length of every sequence, row by row of a batch.

    State: `model.follows_length` tells those who batch that rows of one batch must be told apart
    """
    trained = trained_length(model)
    for each in rotary_sets(model):
        module: Any = each.module
        followers = module.__dict__.setdefault("follows", {})
        followers[each.layer_type] = Follower(scale, each.read(max_length=trained))
        name = "rotate" if hasattr(module, "rotate") else "forward"
        if f"plain_{name}" not in module.__dict__:
            setattr(module, f"plain_{name}", getattr(module, name))
            setattr(module, name, MethodType(_rotate if name == "rotate" else _forward, module))
    model.follows_length = True  # type: ignore[assignment]


def follows_length(model: nn.Module) -> bool:
    """Whether what a token reads depends on how long its whole sequence is, whatever wraps the model."""
    return any(
        getattr(module, "follows_length", False) is True or _kinds(module) & FOLLOWING
        for module in model.modules()
    )


def _kinds(module: Any) -> frozenset[str]:
    """The kinds of rotary positions that a module of transformers computes."""
    found = getattr(module, "rope_type", ())
    return frozenset((found,) if isinstance(found, str) else dict(found).values())


@dataclass
class Follower:
    """What a set of frequencies that follows the length remembers."""

    scale: Scale
    trained: Rotary
    length: int = 0

    def update(self, each: RotarySet, length: int) -> None:
        """Set the frequencies for sequences of this length."""
        if length != self.length:
            self.length = length
            each.write(self.scale(self.trained, length))

    def groups(self, position_BT: Tensor) -> list[tuple[int, Tensor]]:
        """(length, rows of that length), a row being as long as its farthest position says."""
        lengths_B = (position_BT.amax(dim=1) + 1).clamp(min=self.trained.max_length)
        return [(int(length), (lengths_B == length).nonzero()[:, 0]) for length in lengths_B.unique()]


def _rotate(self: Any, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
    each, follower = RotarySet(module=self), self.follows[None]
    groups = follower.groups(position_BT)
    if len(groups) == 1:
        follower.update(each, groups[0][0])
        return self.plain_rotate(x_BNTH, position_BT, is_key=is_key)  # type: ignore[no-any-return]
    turned = torch.empty_like(x_BNTH)
    for length, rows in groups:
        follower.update(each, length)
        turned[rows] = self.plain_rotate(x_BNTH[rows], position_BT[rows], is_key=is_key)
    return turned


def _forward(self: Any, x: Tensor, position_ids: Tensor, layer_type: str | None = None) -> Any:
    types = () if layer_type is None else (layer_type,)
    if layer_type not in self.follows:
        return self.plain_forward(x, position_ids, *types)
    each, follower = RotarySet(module=self, layer_type=layer_type), self.follows[layer_type]
    groups = follower.groups(position_ids)
    if len(groups) == 1:
        follower.update(each, groups[0][0])
        return self.plain_forward(x, position_ids, *types)
    found: list[Tensor] = []
    for length, rows in groups:
        follower.update(each, length)
        parts = self.plain_forward(x, position_ids[rows], *types)
        found = found or [part.new_empty(len(position_ids), *part.shape[1:]) for part in parts]
        for whole, part in zip(found, parts, strict=True):
            whole[rows] = part
    return tuple(found)
