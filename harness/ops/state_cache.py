"""A running sum instead of a growing cache, for recurrent attention.

Shapes: B batch, N heads, H head dim, E value width. The class has the methods of Hugging Face's cache layers
and needs no import of it.
"""

from __future__ import annotations

from torch import Tensor

from harness.errors import IncompatibleError


class StateCache:
    """The running sum of a recurrent attention; its size does not grow.

    Shapes: state BNHE once there is one
    """

    is_compileable = False
    is_sliding = False

    def __init__(self) -> None:
        self.state: Tensor | None = None
        self.seen = 0

    def store(self, state: Tensor, num_tokens: int) -> None:
        """Keep the state after `num_tokens` more tokens."""
        self.state = state
        self.seen += num_tokens

    def get_seq_length(self) -> int:
        return self.seen

    @property
    def is_initialized(self) -> bool:
        return self.state is not None

    def get_max_length(self) -> int:
        return -1

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.state is not None:
            self.state = self.state[indices.to(self.state.device)]

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.state is not None:
            self.state = self.state.repeat_interleave(repeats, dim=0)

    def reset(self) -> None:
        self.state, self.seen = None, 0

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            raise IncompatibleError(
                "a recurrent attention's state cannot forget tokens, so decoding=speculative needs another "
                "attention method"
            )
