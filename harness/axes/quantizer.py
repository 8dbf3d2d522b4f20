"""Quantizer: storing weights (and computing activations) in few bits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.method import Method

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Token batches a quantizer may look at; a declared input with a hash of its own.

    Shapes: batches_BT, each B x T int64
    """

    batches_BT: Sequence[Tensor]
    sha256: str


class Quantizer(Method):
    """Replaces linear layers by packed ones, in place; embeddings, norms and head stay.

    Every replacement module offers `stored_bits() -> int`, `num_weights() -> int` and
    `dequantize() -> Tensor` (the weight, out x in), and a state dict of packed tensors.
    """

    axis = "quantizer"
    default = "none"
    optional = True
    needs_calibration: bool = False
    provides = frozenset({"packed_weights"})

    @abstractmethod
    def quantize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        """The model with packed linear layers."""
        raise NotImplementedError

    @abstractmethod
    def empty(self, model: nn.Module) -> nn.Module:
        """The model with packed layers of the right shapes and no content, ready to load a state dict."""
        raise NotImplementedError

    @abstractmethod
    def bits_per_weight(self, in_features: int, out_features: int) -> float:
        """Bits stored for each weight of a layer, scales and zeros included, by formula."""
        raise NotImplementedError
