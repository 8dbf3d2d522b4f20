"""Decoding: how text is drawn from a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from harness.errors import IncompatibleError
from harness.method import CellView, Method, Problem

if TYPE_CHECKING:
    from torch import Tensor, nn


UNPACKED = 16
"""Bits of a cache that keeps what the model gives, in whatever format it is."""


class Decoding(Method):
    """A generation strategy. One that transformers' generate has says its options; others override
    `generate`.

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
        """A cache of bits that there are not, or of a method that keeps its own."""
        bits = config.cache_bits
        if bits == UNPACKED:
            return
        if not 2 <= bits <= 8:
            message = f"{bits} must be between 2 and 8, or {UNPACKED} for a cache that is not quantized"
            yield Problem(where="decoding.cache_bits", message=message)
        elif cls.generate is not Decoding.generate:
            yield Problem(
                where="decoding.cache_bits",
                message=f"decoding={cls.name} keeps a cache of its own; leave it at {UNPACKED}, or choose "
                "decoding=greedy, sampling or beam",
            )

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
                **self.cache(model),
                **self.options(),
            )
        return out[:, input_BT.shape[1] :]  # type: ignore[no-any-return]

    def cache(self, model: nn.Module) -> dict[str, Any]:
        """The quantized cache as an argument of `generate`; nothing where keys and values stay as they are.

        Raises: IncompatibleError for a model whose layers keep something else
        """
        bits = self.config.cache_bits
        if bits == UNPACKED:
            return {}
        from transformers.cache_utils import Cache, CacheLayerMixin

        from harness.ops.quantized_cache import QuantizedCache

        config: Any = model.config
        text = config.get_text_config(decoder=True)
        own = getattr(model, "new_cache", None)
        kinds = {type(layer).__name__ for layer in own().layers} if own is not None else set()
        other = [kind for kind in getattr(text, "layer_types", None) or () if "attention" not in kind]
        if config.is_encoder_decoder or other or "StateCache" in kinds or "PagedCache" in kinds:
            raise IncompatibleError(
                f"decoding.cache_bits={bits}: {type(model).__name__} keeps more than the keys and values of "
                f"its own tokens, or keeps them in blocks; leave it at {UNPACKED}"
            )
        CacheLayerMixin.register(QuantizedCache)  # what tells attention from other layers' caches
        layers = [QuantizedCache(bits=bits) for _ in range(text.num_hidden_layers)]
        return {"past_key_values": Cache(layers=layers)}
