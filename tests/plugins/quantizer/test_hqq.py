"""HQQ: its iteration against the equations written out and the authors' code, and what it is for."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import Tensor

from harness import ConfigError


def fitted(weight: Tensor, bits: int, **options: Any) -> tuple[Any, Tensor]:
    """The method's grid of groups of 64, and the weight on it."""
    method = tiny.choose("quantizer", "hqq", bits=bits, granularity="group", **options).build()
    grid = method.fit(weight)
    return grid, grid.nearest(weight)


def half_quadratic(weight: Tensor, bits: int) -> Tensor:
    """One group of weights by equations 3 to 5 with the constants of the blog, in float64."""
    w = weight.double()
    top = 2**bits - 1
    scale = top / (w.max() - w.min())
    zero, beta, best, least = -w.min() * scale, 10.0, w, float("inf")
    for _ in range(20):
        q = torch.round(w * scale + zero).clamp(0, top)
        r = (q - zero) / scale
        error = float((w - r).abs().mean())
        if error >= least:
            break
        best, least = r, error
        e = [
            (1 if x > 0 else -1) * max(0.0, abs(x) - abs(x) ** (0.7 - 1) / beta) if x else 0.0
            for x in (w - r).tolist()
        ]
        zero = (q - (w - torch.tensor(e).double()) * scale).mean()
        beta *= 1.01
    return best


def heavy(rows: int, width: int) -> Tensor:
    """Weights with heavy tails, as trained ones have."""
    generator = torch.Generator().manual_seed(0)
    normal, scale = (torch.randn(rows, width, generator=generator) for _ in range(2))
    return 0.02 * normal * (1 + scale.square())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_it_is_the_half_quadratic_iteration(bits: int) -> None:
    for row in heavy(6, 64):
        grid, rounded = fitted(row[None], bits, scale_dtype="float32")
        expected = half_quadratic(row, bits)
        step = float(grid.scale)
        assert (rounded[0] - expected).abs().max() < 0.02 * step


AUTHORS = {
    2: ((0.6560340, 0.5273671), (0.95628, 1.95224, 1.07639), (0.6560607, 0.5273543)),
    3: ((0.3343863, 0.2657946), (2.83548, 4.39899, 3.02721), (0.3343863, 0.2657946)),
    4: ((0.1565165, 0.1245403), (6.18763, 9.38622, 7.24134), (0.1589613, 0.1261778)),
    8: ((0.0093005, 0.0074491), (103.03339, 163.48767, 121.88408), (0.0093005, 0.0074490)),
}
"""What hqq 0.2.8 (mobiusml/hqq at e0b1d00, CPU, axis 1, groups of 64, float32) makes of heavy(64, 256), by
bits: relative errors (absolute, squared) and the first zero points with optimize_weights_proximal_v2; then
the errors with its default, which keeps the zeros of its last step and starts 4 bits from whole ones."""


def relative_errors(rounded: Tensor, weight: Tensor) -> tuple[float, float]:
    """Mean absolute and root mean square error over those of the weight."""
    error = rounded - weight
    return float(error.abs().mean() / weight.abs().mean()), float(error.norm() / weight.norm())


@pytest.mark.parametrize("bits", AUTHORS)
def test_errors_and_zero_points_are_those_of_the_authors_code(bits: int) -> None:
    weight = heavy(64, 256)
    errors, zeros, default = AUTHORS[bits]
    grid, rounded = fitted(weight, bits, scale_dtype="float32")
    assert relative_errors(rounded, weight) == pytest.approx(errors, abs=2e-7)
    assert grid.zero.flatten()[:3].tolist() == pytest.approx(zeros, abs=2e-5)
    assert relative_errors(rounded, weight)[0] <= default[0] + 1e-7


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_errors_are_smaller_than_where_it_starts(bits: int) -> None:
    weight = heavy(64, 256)
    _, rounded = fitted(weight, bits)
    _, plain = fitted(weight, bits, iterations=0)
    assert (rounded - weight).abs().mean() < (plain - weight).abs().mean()


def test_without_iterations_it_is_the_min_max_grid() -> None:
    weight = heavy(4, 64)
    grid, rounded = fitted(weight, 4, iterations=0)
    assert (rounded - weight).abs().max() <= 0.51 * grid.scale.max()


def test_what_it_needs_is_said() -> None:
    for options, message in (
        ({"symmetric": True}, "symmetric must be false"),
        ({"granularity": "tensor"}, "granularity=channel or group"),
        ({"norm": 0.0}, "norm=0.0"),
    ):
        with pytest.raises(ConfigError, match=message):
            tiny.choose("quantizer", "hqq", **options)
