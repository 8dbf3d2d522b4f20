"""A running sum instead of a growing cache, for recurrent attention."""

from __future__ import annotations

from torch import Tensor

from harness.errors import IncompatibleError
from harness.ops.cache_layer import CacheLayer


class StateCache(CacheLayer):
    """The running sums of a recurrent attention; their size does not grow.

    Shapes: state BNHE once there is one, in single precision at least; norm BNH1 where a sum of keys divides;
    recent BC(W-1), the last inputs of a convolution
    """

    is_croppable = False

    def __init__(self) -> None:
        self.state: Tensor | None = None
        self.norm: Tensor | None = None
        self.recent: Tensor | None = None

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove:
            raise IncompatibleError(
                "a recurrent attention's state cannot forget tokens, so decoding=speculative needs another "
                "attention method"
            )
