"""Decoding: how text is drawn from a model."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.method import Method

if TYPE_CHECKING:
    from torch import Tensor, nn


class Decoding(Method):
    """A generation strategy. One that transformers' generate has says its options; others override
    `generate`.

    State: `models` holds what its ModelRef options name (a draft, an amateur), by option
    Shapes: input_BT left-padded ids and mask_BT -> BS new ids only, padded right
    """

    axis = "decoding"
    default = "greedy"
    models: Mapping[str, nn.Module] = MappingProxyType({})

    def options(self) -> dict[str, Any]:
        """Keyword arguments of transformers' `generate`; `top_k=0` unless asked for."""
        raise NotImplementedError

    def generate(
        self, model: nn.Module, input_BT: Tensor, mask_BT: Tensor, *, max_new_tokens: int, seed: int
    ) -> Tensor:
        """New tokens; the global RNG is seeded with `seed` and restored."""
        import torch

        devices = [input_BT.device] if input_BT.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            out = model.generate(  # type: ignore[operator]
                input_ids=input_BT,
                attention_mask=mask_BT,
                max_new_tokens=max_new_tokens,
                **self.options(),
            )
        return out[:, input_BT.shape[1] :]  # type: ignore[no-any-return]
