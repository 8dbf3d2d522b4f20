"""Factorizer: linear layers whose weight is a product of two thin matrices."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from harness import Calibration, ConfigError, Hessian, Method, change_weights, hookimpl


class Factorizer(Method):
    """Gives every linear layer a weight of lower rank, in place; a method says which.

    Weights stay one matrix each, so that whatever comes after (a quantizer, an adapter) finds what it knows.
    """

    axis = "factorizer"
    default = "none"
    optional = True
    gathers: ClassVar[type[Hessian] | None] = None
    """What it reads of a layer's inputs, summed over the calibration data; None where it reads none."""
    changes = frozenset({"weights", "rank", "calibration_sha256"})
    after = frozenset({"weights", "calibration_sha256"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        rank_share: float = 0.5
        """Rank that stays, as a share of the smaller side of each weight (above 0, below 1)."""

        def __post_init__(self) -> None:
            if not 0 < self.rank_share < 1:
                raise ConfigError(f"factorizer.rank_share={self.rank_share} must lie between 0 and 1")

    config: Config

    @property
    def needs_calibration(self) -> bool:
        """Whether it reads calibration data."""
        return self.gathers is not None

    def calibration_tokens(self, in_features: int) -> int:
        """Calibration tokens without which a layer with so many inputs cannot be done."""
        return in_features if self.needs_calibration else 0

    def rank(self, weight_OI: Tensor) -> int:
        """The rank that a weight keeps, 1 at least."""
        return max(1, round(min(weight_OI.shape) * self.config.rank_share))

    @abstractmethod
    def factor(self, weight_OI: Tensor, inputs: Any, rank: int) -> Tensor:
        """The weight of that rank; `inputs` is what `gathers` has summed.

        Shapes: out x in, float32
        """
        raise NotImplementedError

    def factorize(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        """The model with weights of lower rank, in place."""

        def change(name: str, weight_OI: Tensor, inputs: Any) -> Tensor:
            return self.factor(weight_OI, inputs, self.rank(weight_OI))

        what = f"factorizer={self.name}"
        change_weights(model, change, what=what, gathers=self.gathers, calibration=calibration)
        return model


@hookimpl
def harness_axes() -> list[type[Method]]:
    return [Factorizer]
