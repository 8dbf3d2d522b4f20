"""Context: extending the length a trained model can use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.method import Method

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary parameters of a model, as a scaling method receives and returns them.

    Shapes: inv_freq is H/2 inverse frequencies in radians per position
    """

    inv_freq: Tensor
    base: float
    head_dim: int
    max_length: int
    """Length the model was trained on, in tokens."""
    attention_factor: float = 1.0
    """Multiplies cos and sin (YaRN's temperature)."""


class Context(Method):
    """A way to read beyond the trained length. Train-free unless `trains`.

    A scaled-rotary method implements `scale`; a windowed or position-truncating one overrides `apply`.
    """

    axis = "context"
    default = "none"
    optional = True
    requires = frozenset({"rotary"})
    changes = frozenset({"rotary"})
    trains: bool = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        factor: float = 2.0
        """Target length as a multiple of the trained length."""

    config: Config

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        """Rotary parameters to use for a sequence of `length` tokens."""
        raise NotImplementedError

    def apply(self, model: nn.Module) -> nn.Module:
        """The model reading longer contexts; also called when an artifact is loaded again."""
        raise NotImplementedError
