"""What every arrangement of norm and residual must do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from harness.axes.norm_position import NormPosition
from harness.conformance._model_suite import *  # noqa: F403
from harness.method import Method

AXIS = "norm_position"


class _Counting(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x


def test_every_norm_is_used_once(method: type[Method]) -> None:
    """`num_norms` norms are made, and each is applied."""
    arrange = method()
    assert isinstance(arrange, NormPosition)
    norms = nn.ModuleList(_Counting() for _ in range(arrange.num_norms()))
    arrange(torch.ones(1, 2, 3), lambda x: x, norms, 1.0)
    assert [norm.calls for norm in norms] == [1] * arrange.num_norms(), (
        "each of the `num_norms` norms must be applied exactly once"
    )  # type: ignore[union-attr]


def test_the_residual_path_is_kept_and_scaled(method: type[Method]) -> None:
    """With norms that do nothing and a sublayer that answers zero, x times the scale remains."""
    arrange = method()
    assert isinstance(arrange, NormPosition)
    norms = nn.ModuleList(nn.Identity() for _ in range(arrange.num_norms()))
    x_BTD = torch.arange(6.0).view(1, 2, 3)
    assert torch.equal(arrange(x_BTD, torch.zeros_like, norms, 1.0), x_BTD), (
        "the residual is lost: with a sublayer of zeros, x itself must come back"
    )
    assert torch.equal(arrange(x_BTD, torch.zeros_like, norms, 3.0), 3 * x_BTD), (
        "the residual is not multiplied by `scale`"
    )
