"""What every attention and position scheme keeps of its digits over 2,000 cached tokens in bfloat16."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.axes import MODEL_AXES
from harness.conformance._asked import is_asked
from harness.conformance._models import LayeredCache, model_of, tokens
from harness.method import Method
from harness.registry.known import registry

LENGTH = 2000
"""Tokens decoded."""
PROMPT = 1800
"""Tokens of them that are read in pieces of 20; the rest come one at a time."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every method that keeps something of the past, or says where it was."""
    methods = [
        method
        for axis in MODEL_AXES
        if axis in ("attention", "position")
        for method in registry().methods(axis).values()
        if is_asked(metafunc.config, method)
    ]
    metafunc.parametrize(
        "scheme",
        methods or [pytest.param(None, marks=pytest.mark.nothing)],
        ids=[f"{method.axis}={method.name}" for method in methods] or None,
    )


@torch.no_grad()
def test_cached_decoding_in_bfloat16_keeps_its_digits(scheme: type[Method]) -> None:
    """The last 200 tokens, decoded one by one, err at most twice as much as one pass in bfloat16 does."""
    shape: dict[str, Any] = {"max_length": LENGTH, "num_layers": 1, "init_std": 0.1}
    exact = model_of(scheme, **shape)
    low = model_of(scheme, dtype=torch.bfloat16, **shape)
    ids = tokens(1, LENGTH)
    truth = exact(ids)[:, PROMPT:]
    at_once = low(ids)[:, PROMPT:].double()
    cache, found = LayeredCache(low), []
    for start in range(0, PROMPT, 20):
        low(ids[:, start : start + 20], past_key_values=cache)
    for at in range(PROMPT, LENGTH):
        found.append(low(ids[:, at : at + 1], past_key_values=cache))
    decoded = torch.cat(found, dim=1).double()
    limit = 2 * (at_once - truth).norm()
    error = (decoded - truth).norm()
    assert error <= limit, (
        f"decoding errs by {error / truth.norm():.1e}, one pass by {limit / 2 / truth.norm():.1e}"
    )
