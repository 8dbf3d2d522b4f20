"""Position: how the order of tokens reaches attention."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from harness.method import Method
from harness.ops.index import Index
from harness.ops.view import View
from harness.spec import ModelSpec


class Position(nn.Module, Method):
    """A position scheme; it acts at up to four points and says nothing at the others.

    Shapes: x_BTD embeddings, position_BT absolute positions (int64), q_BNTH, k_BKSH
    """

    axis = "position"
    default = "rope"
    keeps_scores: bool = False
    """Whether training keeps a number or more for each pair of tokens (a learned bias, a term of the query):
    the plan then only bounds its memory."""

    @classmethod
    def kept_values(cls, config: Any, spec: ModelSpec, length: int) -> float:
        """Values in single precision that a token of `length` keeps for them in one layer until the backward
        pass.
        """
        return 3.0 * spec.num_heads * length if cls.keeps_scores else 0.0

    follows_length: bool = False
    """Whether its rotations depend on how long the whole row is, so that those who batch tell rows apart."""

    def __init__(self, config: Any, spec: ModelSpec, *, bidirectional: bool = False) -> None:
        nn.Module.__init__(self)
        Method.__init__(self, config)
        self.spec, self.bidirectional = spec, bidirectional
        self.build(spec)

    def build(self, spec: ModelSpec) -> None:
        """Create parameters and buffers; `self.bidirectional` says whether keys may lie in the future."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        """Moves and casts as of any module, but for buffers: positions need more digits than bf16 weights."""
        before = dict(self._buffers)
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, buffer in before.items():
            found = self._buffers[name]
            if buffer is None or found is None or buffer.is_meta or not buffer.is_floating_point():
                continue
            if found.itemsize < buffer.itemsize:
                self._buffers[name] = buffer.to(found.device)
        return self

    def reset_buffers(self) -> None:
        """Compute non-persistent buffers anew, where they are (after a load through the meta device)."""

    def max_length(self) -> int | None:
        """Positions this scheme can hold at most; None where it has no end."""
        return None

    def embed(self, x_BTD: Tensor, position_BT: Tensor) -> Tensor:
        """Embeddings with absolute positions added."""
        return x_BTD

    def rotate(self, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
        """Queries or keys as rotated (or otherwise multiplied) by their positions."""
        return x_BNTH

    def has_bias(self) -> bool:
        """Whether `bias` adds to scores; attention then needs a kernel that takes one."""
        return False

    def bias(self, h: Index, q: Index, k: Index) -> Tensor:
        """Term added to the score of head h, query position q and key position k (before softmax)."""
        raise NotImplementedError

    def has_query_bias(self) -> bool:
        """Whether `query_bias` adds to scores; no scheme has both it and `bias`."""
        return False

    def query_bias(self, layer: int, q_BNTH: Tensor, view: View) -> Callable[[Tensor, Tensor], Tensor]:
        """Term that depends on the query: (query rows, key slots) -> added to q k before it is scaled.

        Shapes: -> `BN[rows][slots]`
        """
        raise NotImplementedError
