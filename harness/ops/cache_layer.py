"""Layers of a cache that hold tensors of fixed meaning: what they share, and layers beside the model's own.

The classes have the methods of Hugging Face's cache layers and need no import of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

L = TypeVar("L", bound="CacheLayer")


class CacheLayer:
    """Tensors of which the first dimension counts the sequences; any attribute that is a tensor is one."""

    is_compileable = False
    is_sliding = False
    is_croppable = True
    seen = 0
    """Tokens so far, padding included."""

    def get_seq_length(self) -> int:
        return self.seen

    @property
    def is_initialized(self) -> bool:
        return self.seen > 0

    def get_max_length(self) -> int:
        return -1

    def each(self, change: Callable[[Tensor], Tensor]) -> None:
        """Replace every tensor held."""
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, change(value))

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        self.each(lambda held: held[indices.to(held.device)])

    def batch_repeat_interleave(self, repeats: int) -> None:
        self.each(lambda held: held.repeat_interleave(repeats, dim=0))

    def reset(self) -> None:
        for name, value in list(vars(self).items()):
            if isinstance(value, Tensor):
                setattr(self, name, None)
        self.seen = 0

    def crop(self, tokens_to_remove: int) -> None:
        """Forget the last tokens of every sequence (their number, of either sign)."""
        raise NotImplementedError


class KeyValueCache(CacheLayer):
    """Keys and values of one layer, in a cache that Hugging Face's models ask for the size of their masks.

    Shapes: keys, values BKSH
    """

    keys: Tensor | None = None
    values: Tensor | None = None

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """(keys that queries see, where the first of them stands), for masks over columns."""
        return self.get_seq_length() + query_length, 0

    @property
    def is_initialized(self) -> bool:
        return self.keys is not None


class MemoryCache(CacheLayer):
    """Keys and values of an encoder's output, made once for all decoding steps.

    Shapes: keys, values BKSH
    """

    def __init__(self) -> None:
        self.keys: Tensor | None = None
        self.values: Tensor | None = None

    def crop(self, tokens_to_remove: int) -> None:
        """The source stays, whatever of the continuation is taken back."""


class PositionCache(CacheLayer):
    """Positions of the keys that a cache holds, where they are not the count of tokens.

    Shapes: positions BS
    """

    def __init__(self) -> None:
        self.positions: Tensor | None = None

    def store(self, positions_BS: Tensor) -> None:
        """Keep the positions of all tokens so far."""
        self.positions, self.seen = positions_BS, positions_BS.shape[1]

    def crop(self, tokens_to_remove: int) -> None:
        self.seen -= abs(tokens_to_remove)
        if self.positions is not None:
            self.positions = self.positions[:, : self.seen]


def beside(cache: Any, kind: type[L], *, index: int, num_layers: int, make: bool) -> L | None:
    """The layer of this kind and index that a cache holds after the model's own; None where it cannot.

    There a beam search reorders it and a crop shortens it like any other, whatever the cache's class.
    """
    layers = getattr(cache, "layers", None)
    if not isinstance(layers, list):
        return None
    for layer in layers[num_layers:]:
        if isinstance(layer, kind) and layer.index == index:  # type: ignore[attr-defined]
            return layer
    grows = getattr(cache, "layer_class_to_replicate", None)
    if not make or (len(layers) < num_layers and grows is None):
        return None
    while len(layers) < num_layers:
        layers.append(grows())  # type: ignore[misc]
    found = kind()
    found.index = index  # type: ignore[attr-defined]
    layers.append(found)
    return found
