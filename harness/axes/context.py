"""Context: extending the length a trained model can use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from harness.axes.attention import Attention, CacheKind, Kernel, layers_of
from harness.errors import ConfigError, IncompatibleError
from harness.method import CellView, Method, Problem
from harness.ops.extension import (
    Rotary,
    rescale,
    rotary_sets,
    set_length,
    stated_length,
    trained_length,
)
from harness.ops.heads import Heads, Placement, Reach
from harness.ops.rotary import inverse_frequencies
from harness.ops.unrotated import install, irreplaceable

if TYPE_CHECKING:
    from torch import Tensor, nn

ANY_BASE = 12345.0
"""Of frequencies on which plans try a method; no model's own, so that a method never finds it there."""
__all__ = ["Context", "Heads", "Placement", "Reach", "Rotary"]


class Context(Method):
    """A way to read beyond the trained length, on our models and on Hugging Face's.

    A scaled-rotary method implements `scale`; one that chooses distances or what is read implements
    `attend`; any other overrides `apply`.
    """

    axis = "context"
    default = "none"
    optional = True
    moves_facts = frozenset({"max_length", "sequence_length", "truncated", "truncated_contexts"})
    requires = frozenset({"rotary"})
    changes = frozenset({"rotary"})
    after = frozenset({"rotary"})
    trains: bool = False
    """Whether it is meant to be followed by training on long sequences (`extend.train` decides)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        factor: float = 2.0
        """Target length as a multiple of the trained length."""

        def __post_init__(self) -> None:
            if not 1 <= self.factor < float("inf"):
                raise ConfigError(f"context.factor={self.factor} must be at least 1")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        if "rotary" in cls.requires and _is_rotary_free(meta_model):
            yield Problem(
                where="context",
                message=f"context={cls.name} changes rotary positions, and a {type(meta_model).__name__} "
                "has none, or changes them itself; use context=direct_finetune or another model",
            )
        if "rotary" not in cls.requires or meta_model is None:
            return
        spec = cell.spec()
        trained = stated_length(meta_model) if spec is None else spec.max_length
        if trained is not None:
            yield from cls.check_rotations(config, _pairs(meta_model), trained)
        reason = irreplaceable(meta_model) if cls.attend is not Context.attend else ""
        if reason:
            yield Problem(
                where="context",
                message=f"context={cls.name} chooses scores, and a {type(meta_model).__name__} {reason}; "
                "use a scaled-rotary context method",
            )
        layers = list(layers_of(meta_model))
        if not layers:
            return
        following = {position.name for _, position in layers if getattr(position, "follows_length", False)}
        for name in sorted(following):
            yield Problem(
                where="context",
                message=f"context={cls.name} changes rotary positions, and those of position={name} "
                "follow the length by themselves; use context=direct_finetune, or position=rope",
            )
        chosen = cell.choice("position")
        turns = chosen is not None and "rotary" in chosen.method.provides
        if turns and not any(hasattr(position, "inv_freq") for _, position in layers):
            yield Problem(
                where="context",
                message=f"context={cls.name} changes rotary positions, and model.layer_pattern leaves them "
                "to no layer; use context=direct_finetune, or keep position=rope in one of them",
            )
        if cls.attend is not Context.attend:
            yield from _without_scores(cls.name, layers)
            yield from _put_aside(cls.name, layers)

    @classmethod
    def check_rotations(cls, config: Any, pairs: Iterable[int], trained: int) -> Iterator[Problem]:
        """Scaling that a head of so many rotations cannot have, or that changes none; distances that no model
        trained on `trained` tokens has met.
        """
        try:
            length, longest = cls.extended(config, trained), cls.longest_distance(config, trained)
        except ConfigError:  # which the stage says
            return
        if longest > trained:
            yield Problem(
                where="context",
                message=f"context={cls.name} reads distances of up to {longest} tokens, beyond the {trained} "
                "that the model was trained on, at which it fails; lower its window (and limit)",
            )
        if cls.scale is Context.scale:
            return
        for number in sorted(set(pairs)):
            frequencies = inverse_frequencies(2 * number, ANY_BASE, torch.device("cpu"))
            before = Rotary(inv_freq=frequencies, base=ANY_BASE, head_dim=2 * number, max_length=trained)
            try:
                after = cls(config).scale(before, length)
            except (ConfigError, IncompatibleError) as error:
                yield Problem(where="context", message=str(error))
                continue
            if after.attention_factor == 1 and torch.equal(after.inv_freq, frequencies):
                yield Problem(
                    where="context.factor",
                    message=f"context={cls.name} changes nothing at {config.factor:g}; raise it above 1",
                )

    @classmethod
    def longest_distance(cls, config: Any, trained: int) -> int:
        """The longest distance, in tokens, that options leave as it is; 0 where it sees to that itself."""
        return 0

    @classmethod
    def extended(cls, config: Any, trained: int) -> int:
        """Tokens that a model trained on `trained` tokens shall read."""
        length: int = round(trained * config.factor)
        return length

    def target_length(self, model: nn.Module) -> int:
        """Tokens the model shall read."""
        return self.extended(self.config, trained_length(model))

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        """Rotary parameters to use for a sequence of `length` tokens; `config.factor` is exact, where the
        length is a whole number.
        """
        raise NotImplementedError

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any] | None:
        """What transformers' `rope_parameters` says of plain rotary positions that this method changed;
        None where it has no words for it.
        """
        return None

    def attend(self, heads: Heads) -> Tensor:
        """Self-attention from unrotated queries and keys (BNTH), a block of queries at a time."""
        raise NotImplementedError

    def reach(self) -> Reach:
        """(first tokens, last tokens) that `attend` reads at most, so that no more are kept; None = all."""
        return None

    def apply(self, model: nn.Module) -> nn.Module:
        """The model reading longer contexts; also called when an artifact is loaded again."""
        length = self.target_length(model)
        if type(self).attend is not Context.attend:
            self.before_install(model)
            install(model, self.attend, reach=self.reach())
        else:
            rescale(model, self.scale, length=length)
        set_length(model, length)
        return model

    def before_install(self, model: nn.Module) -> None:
        """Read off the model what `attend` needs, e.g. its trained length."""


def _pairs(meta_model: nn.Module) -> list[int]:
    """Rotations of a head, by set of frequencies; nothing where there are none that can be changed."""
    try:
        return [len(each.inv_freq) for each in rotary_sets(meta_model)]
    except IncompatibleError:
        return []


def _without_scores(name: str, layers: Iterable[tuple[Any, Any]]) -> Iterator[Problem]:
    """Layers whose scores a method cannot choose, as they have none or rotate nothing; each kind once."""
    found: dict[str, None] = {}
    for attention, position in layers:
        if attention.recurrent:
            found[f"chooses scores, and attention={attention.name} has none"] = None
        elif type(attention).forward is not Attention.forward:
            found[f"replaces how scores are made, and attention={attention.name} makes its own"] = None
        elif not hasattr(position, "inv_freq"):
            found[f"chooses distances of rotary positions, and position={position.name} has none"] = None
    for reason in found:
        message = f"context={name} {reason}; use attention=full and position=rope in every layer, or a "
        yield Problem(where="context", message=f"{message}scaled-rotary context method")


def _put_aside(name: str, layers: Iterable[tuple[Any, Any]]) -> Iterator[Problem]:
    """What was asked of attention and a method that chooses scores does in its own way."""
    configs = [attention.config for attention, _ in layers if not attention.recurrent]
    kernels = {each.kernel.value for each in configs} - {Kernel.auto.value}
    caches = {each.cache.value for each in configs} - {CacheKind.contiguous.value}
    for option, values in (("kernel", kernels), ("cache", caches)):
        for value in sorted(values):
            yield Problem(
                where=f"attention.{option}",
                message=f"{value} holds until context={name} is applied, which computes scores and keeps "
                f"keys in a way of its own, whatever attention.{option} says",
                fatal=False,
            )


def _is_rotary_free(meta_model: nn.Module | None) -> bool:
    """Whether a model from outside has no rotary positions that can be changed."""
    if not hasattr(meta_model, "config"):  # ours says by its choices what it has
        return False
    assert meta_model is not None
    try:
        rotary_sets(meta_model)
    except IncompatibleError:
        return True
    return False
