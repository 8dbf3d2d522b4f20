"""Decoding: how text is drawn from a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.axes.attention import Attention, CacheKind
from harness.axes.context import Context
from harness.errors import IncompatibleError
from harness.method import CellView, Choice, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn

    from harness.ops.drawing import Rule


class Decoding(Method):
    """A generation strategy. One that transformers' generate has says its options; others override
    `generate`.

    Of a checkpoint's generation config only the special tokens count; what a strategy does not say is off.

    State: `models` holds what its ModelRef options name (a draft, an amateur), by option
    Shapes: input_BT left-padded ids and mask_BT -> BS new ids only, padded right
    """

    axis = "decoding"
    default = "greedy"

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        cache_bits: int = 16
        """Bits of the keys and values that are kept while decoding, 2 to 8: keys by channel, values by token,
        the newest 32 tokens at least as they are; 16 keeps all as the model gives them."""

    config: Config
    models: Mapping[str, nn.Module] = MappingProxyType({})

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """A cache of bits that there are not, or of what keeps something else; virtual tokens beside a method
        that steps by itself; more tokens wanted at once than there are.
        """
        from harness.ops.quantized_cache import UNPACKED

        steps, bits = cls.generate is not Decoding.generate, config.cache_bits
        tuned = [cell.choice("peft", stage=stage) for stage in cell.stages if "peft" in cell.reads(stage)]
        if steps and any(getattr(choice and choice.method, "virtual", False) for choice in tuned):
            yield Problem(where="decoding", message=f"decoding={cls.name}: {NO_VIRTUAL}")
        option, wanted = cls.at_once(config)
        head = None if meta_model is None else meta_model.get_output_embeddings()  # type: ignore[operator]
        if head is not None and wanted > head.weight.shape[0]:
            message = f"{wanted} is more than the vocabulary's {head.weight.shape[0]} tokens; lower it"
            yield Problem(where=f"decoding.{option}", message=message)
        if bits == UNPACKED:
            return
        contexts = [
            cell.choice("context", stage=name) for name in cell.stages if "context" in cell.reads(name)
        ]
        scores = [f"context={each.method.name}" for each in contexts if each and _chooses(each, "attend")]
        if kept := not_all_kept(cell, meta_model) or "".join(scores[:1]):
            yield Problem(
                where="decoding.cache_bits",
                message=f"{kept} keeps something else than all keys and values; leave it at {UNPACKED}",
            )
        if not 2 <= bits <= 8:
            message = f"{bits} must be between 2 and 8, or {UNPACKED} for a cache that is not quantized"
            yield Problem(where="decoding.cache_bits", message=message)
        elif steps:
            yield Problem(
                where="decoding.cache_bits",
                message=f"decoding={cls.name} keeps a cache of its own; leave it at {UNPACKED}, or choose "
                "decoding=greedy, sampling or beam",
            )

    @classmethod
    def at_once(cls, config: Any) -> tuple[str, int]:
        """The option that says how many tokens it wants to choose among at once, and how many."""
        return "", 0

    def options(self) -> dict[str, Any]:
        """Keyword arguments of transformers' `generate`; `top_k=0` unless asked for."""
        raise NotImplementedError

    def rule(self) -> Rule | None:
        """How it chooses token after token; None for one that searches, or overrides `generate`."""
        from harness.ops.drawing import rule_of

        own = type(self).generate is not Decoding.generate
        return None if own else rule_of(self.options())

    def generate(
        self,
        model: nn.Module,
        input_BT: Tensor,
        mask_BT: Tensor,
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> Tensor:
        """New tokens; each row draws from the stream of its own seed, whatever stands beside it."""
        from harness.ops.searching import generate

        return generate(
            model,
            input_BT,
            mask_BT,
            options=self.options(),
            max_new_tokens=max_new_tokens,
            seeds=seeds,
            cache_bits=self.config.cache_bits,
        )


NO_VIRTUAL = (
    "it steps through a model by itself, and virtual tokens (of prompt, prefix and p-tuning) are put before "
    "a prompt by transformers' generate alone; use decoding=greedy, sampling or beam, or peft=lora"
)


def not_all_kept(cell: CellView, meta_model: Any) -> str:
    """The choice by which a model's cache is no growing one of all keys and values; empty where it is one, as
    far as a plan can tell.
    """
    for block in getattr(getattr(meta_model, "model", None), "layers", ()):
        attention = getattr(block, "self_attn", None)
        if isinstance(attention, Attention):
            paged = attention.config.cache is CacheKind.paged
            if paged or attention.new_cache() is not None:
                return f"attention={attention.name}" + (" with attention.cache=paged" if paged else "")
    for stage in cell.stages:
        chosen = cell.choice("context", stage=stage) if "context" in cell.reads(stage) else None
        if chosen is not None and _chooses(chosen, "reach"):
            return f"context={chosen.method.name}"
    return ""


def _chooses(context: Choice, point: str) -> bool:
    """Whether a context method overrides a point of its contract."""
    return getattr(context.method, point, None) is not getattr(Context, point)


def check_vocabulary(model: Any, other: Any, *, where: str) -> None:
    """Two models that decode together must speak of the same tokens.

    Raises: IncompatibleError naming both sizes
    """
    sizes = [int(each.get_output_embeddings().weight.shape[0]) for each in (model, other)]
    if sizes[0] != sizes[1]:
        raise IncompatibleError(
            f"{where}: its vocabulary has {sizes[1]} tokens, the model's {sizes[0]}; name a model with the "
            "same tokenizer"
        )
