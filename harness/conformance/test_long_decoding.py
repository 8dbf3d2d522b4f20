"""What attention, positions and context methods keep of their digits over 2,000 cached tokens in bfloat16.

Every attention and every position scheme stands beside the defaults, and in pairs with each other and with
context methods. Some of each are drawn by a seed that changes by the week (`HARNESS_PAIRS_SEED` fixes it);
the rest are slow tests. The last 200 tokens are decoded one by one, by two layers whose scores are far from
uniform.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.axes import MODEL_AXES
from harness.axes.context import Context
from harness.conformance._asked import is_asked
from harness.conformance._models import hugging_face, inputs_for, pair_of, tokens
from harness.errors import HarnessError
from harness.method import Method
from harness.registry.known import registry

LENGTH = 2000
"""Tokens decoded."""
PROMPT = 1800
"""Tokens of them that are read in pieces of 20; the rest come one at a time."""
TRAINED = 500
"""Length that a context method extends to all of them."""
SHARPER = 6
"""Factor on the weights of queries and keys: fresh ones read all tokens alike, and nothing would show."""
ALONE, DRAWN = 4, 1
"""Methods that are drawn, and pairs of each kind: one takes some seconds."""
Group = tuple[type[Method], ...]


def alone() -> list[Group]:
    """Every method that keeps something of the past, or says where it was."""
    axes = [axis for axis in MODEL_AXES if axis in ("attention", "position")]
    return [(method,) for axis in axes for method in registry().methods(axis).values()]


def beside(first: str, second: str) -> list[Group]:
    """Every pair of methods of two axes."""
    others = [method for method in registry().methods(second).values() if method.name != "none"]
    return [(one, other) for one in registry().methods(first).values() for other in others]


def named(group: Group) -> str:
    return "-".join(f"{method.axis}={method.name}" for method in group)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """What of installed methods is asked, alone and in pairs; all but the drawn ones are slow."""
    draw = random.Random(int(os.environ.get("HARNESS_PAIRS_SEED", time.time() // (7 * 86400))))
    single = [group for group in alone() if is_asked(metafunc.config, group[0])]
    drawn = draw.sample(single, min(ALONE, len(single)))
    found = [
        pytest.param(group, id=named(group), marks=() if group in drawn else (pytest.mark.slow(always=True),))
        for group in single
    ]
    for second in ("position", "context"):
        pairs = [
            pair
            for pair in beside("attention", second)
            if any(is_asked(metafunc.config, method) for method in pair)
        ]
        fast = draw.sample(pairs, min(DRAWN, len(pairs)))
        for pair in pairs:
            marks = () if pair in fast else (pytest.mark.slow,)
            found.append(pytest.param(pair, id=named(pair), marks=marks))
    metafunc.parametrize("group", found or [pytest.param(None, marks=pytest.mark.nothing)])


def model_of(group: Group, dtype: torch.dtype) -> Any:
    """A Hugging Face model of some methods, the context method applied.

    Raises: HarnessError where they do not fit
    """
    shaping = [method for method in group if not issubclass(method, Context)]
    extending = [method for method in group if issubclass(method, Context)]
    model = pair_of(shaping, max_length=TRAINED if extending else LENGTH, init_std=0.1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                parameter.mul_(SHARPER)
    found = hugging_face(model)
    for method in extending:
        found = method(method.Config(factor=LENGTH / TRAINED)).apply(found)
    return found.to(dtype)


@torch.no_grad()
def errors(group: Group) -> tuple[float, float]:
    """(of decoding, of one pass), both by the deviation of the logits that exact numbers give."""
    exact, low = model_of(group, torch.float64), model_of(group, torch.bfloat16)
    ids, inputs = tokens(1, LENGTH), inputs_for(exact, 1)

    def read(model: Any, start: int, end: int, **options: Any) -> Tensor:
        logits: Tensor = model(input_ids=ids[:, start:end], **inputs, **options).logits
        return logits.double()

    def at_once(model: Any) -> Tensor:
        return read(model, 0, LENGTH, use_cache=False)[:, PROMPT:]

    def decoded(model: Any) -> Tensor:
        kept = model.new_cache()
        for start in range(0, PROMPT, 20):
            read(model, start, start + 20, past_key_values=kept)
        return torch.cat([read(model, at, at + 1, past_key_values=kept) for at in range(PROMPT, LENGTH)], 1)

    def error(way: Callable[[Any], Tensor]) -> float:
        truth = way(exact)
        return float((way(low) - truth).square().mean().sqrt()) / float(truth.std())

    return error(decoded), error(at_once)


def test_cached_decoding_in_bfloat16_keeps_its_digits(group: Group) -> None:
    """Decoding in bfloat16 errs at most twice as much as one pass does, each against itself in float64.

    Decoding itself may say another thing than one pass where positions follow the length.
    """
    try:
        decoded, once = errors(group)
    except HarnessError as error:
        pytest.skip(f"refused: {error}")
    assert decoded <= 2 * once, (
        f"decoding errs by {decoded:.4f} of the logits' deviation, one pass by {once:.4f}"
    )
