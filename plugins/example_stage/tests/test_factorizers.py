"""Facts about low-rank weights that no conformance suite can know."""

import pytest
import torch
from harness_lowrank.svd import TruncatedSVD
from harness_lowrank.whitened import Whitened

from harness import Hessian


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """A weight, and correlated inputs of it."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(24, 24, generator=generator).double()
    x = torch.randn(500, 24, generator=generator).double() @ mixing
    return torch.randn(16, 24, generator=generator).double(), x


def test_svd_errs_by_the_singular_values_it_drops() -> None:
    weight, _ = data()
    found = TruncatedSVD().factor(weight, None, 5)
    dropped = torch.linalg.svdvals(weight)[5:]
    assert float((found - weight).norm()) == pytest.approx(float(dropped.norm()))


def test_whitened_errs_least_on_its_inputs() -> None:
    """The outputs err by what the best matrix of that rank leaves of W X^T: its dropped singular values."""
    weight, x = data()
    moments = Hessian(24, torch.device("cpu"))
    moments.add(x)
    found = Whitened().factor(weight, moments, 5)
    least = torch.linalg.svdvals(weight @ x.T)[5:].norm()
    assert float(((found - weight) @ x.T).norm()) == pytest.approx(float(least), rel=1e-3)
    plain = TruncatedSVD().factor(weight, None, 5)
    assert float(((plain - weight) @ x.T).norm()) > 1.2 * float(least)
