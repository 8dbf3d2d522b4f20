"""Decoding: how text is drawn from a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.errors import IncompatibleError
from harness.method import CellView, Method, Problem

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
        """A cache of bits that there are not, or of a method that keeps its own; virtual tokens beside it."""
        from harness.ops.quantized_cache import UNPACKED

        steps, bits = cls.generate is not Decoding.generate, config.cache_bits
        tuned = [cell.choice("peft", stage=stage) for stage in cell.stages if "peft" in cell.reads(stage)]
        if steps and any(getattr(choice and choice.method, "virtual", False) for choice in tuned):
            yield Problem(where="decoding", message=f"decoding={cls.name}: {NO_VIRTUAL}")
        if bits == UNPACKED:
            return
        if not 2 <= bits <= 8:
            message = f"{bits} must be between 2 and 8, or {UNPACKED} for a cache that is not quantized"
            yield Problem(where="decoding.cache_bits", message=message)
        elif steps:
            yield Problem(
                where="decoding.cache_bits",
                message=f"decoding={cls.name} keeps a cache of its own; leave it at {UNPACKED}, or choose "
                "decoding=greedy, sampling or beam",
            )

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
