"""Position: how the order of tokens reaches attention."""

from __future__ import annotations

from torch import Tensor, nn

from harness.axes.attention import Index
from harness.method import Method
from harness.spec import ModelSpec


class Position(nn.Module, Method):
    """A position scheme; it acts at up to three points and says nothing at the others.

    Shapes: x_BTD embeddings, position_BT absolute positions (int64), q_BNTH, k_BKSH
    """

    axis = "position"
    default = "rope"

    def __init__(self, config: Method.Config, spec: ModelSpec) -> None:
        nn.Module.__init__(self)
        Method.__init__(self, config)
        self.spec = spec

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
