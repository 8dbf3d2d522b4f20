"""What every normalisation must do."""

from __future__ import annotations

import torch

from harness.axes.norm import Norm
from harness.conformance._compare import close
from harness.conformance._model_suite import *  # noqa: F403
from harness.conformance._models import SPEC
from harness.method import Method

AXIS = "norm"


def _norm(method: type[Method]) -> torch.nn.Module:
    norm = method()
    assert isinstance(norm, Norm)
    return norm.build(SPEC.dim, SPEC).double()


@torch.no_grad()
def test_the_size_of_a_large_input_does_not_matter(method: type[Method]) -> None:
    """Norm(1000 x) = Norm(x) where all entries are beyond the epsilon, or a squashing function's bend; the
    last dimension only is normalised.
    """
    norm = _norm(method)
    drawn = torch.randn(2, 5, SPEC.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x_BTD = 100 * (drawn + drawn.sign())
    close(norm(x_BTD), norm(1000 * x_BTD), "Norm(1000 x) is not Norm(x)", rtol=1e-6, atol=1e-6)
    why = "a token's norm depends on the other tokens: normalise the last dimension alone"
    close(norm(x_BTD)[:, 2:3], norm(x_BTD[:, 2:3]), why)
    assert norm(x_BTD).shape == x_BTD.shape, "the norm changes the shape of what it is given"


def test_parameters_are_called_weight_and_bias(method: type[Method]) -> None:
    """Importers and bitfit rely on the names."""
    vectors = {name for name, parameter in _norm(method).named_parameters() if parameter.numel() > 1}
    assert vectors <= {"weight", "bias"}, (
        "parameters of a norm are called `weight` and `bias`, and others are single numbers"
    )
