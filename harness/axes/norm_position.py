"""Norm position: where a block normalises, relative to its residual branch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

from torch import Tensor, nn

from harness.method import Method


class NormPosition(Method):
    """Arrangement of norm, sublayer and residual (survey's Table 6)."""

    axis = "norm_position"
    default = "pre"

    @abstractmethod
    def num_norms(self) -> int:
        """Norms a sublayer needs."""
        raise NotImplementedError

    def final_norm(self) -> bool:
        """Whether the stack ends with one more norm."""
        return True

    @abstractmethod
    def __call__(
        self,
        x_BTD: Tensor,
        sublayer: Callable[[Tensor], Tensor],
        norms: nn.ModuleList,
        residual_scale: float,
    ) -> Tensor:
        """The sublayer applied to x with norms and residual; residual_scale multiplies x where added."""
        raise NotImplementedError

    @staticmethod
    def residual(x_BTD: Tensor, residual_scale: float) -> Tensor:
        """The residual path, scaled."""
        return x_BTD if residual_scale == 1 else x_BTD * residual_scale
