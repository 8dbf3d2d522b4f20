"""Decoding: how text is drawn from a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.errors import IncompatibleError
from harness.method import Method

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
    models: Mapping[str, nn.Module] = MappingProxyType({})

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
            model, input_BT, mask_BT, options=self.options(), max_new_tokens=max_new_tokens, seeds=seeds
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
