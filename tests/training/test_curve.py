"""The curve's verdicts: a training that lost what it knew is told from one that was merely short."""

from __future__ import annotations

import math

import pytest
import torch

from harness.training.curve import Curve

UNIFORM = math.log(512)
"""Loss of a uniform guess among 512 tokens."""


def curve(*losses: float) -> Curve:
    made = Curve(log_every=2, device=torch.device("cpu"))
    for step, loss in enumerate(losses, start=1):
        made.add(torch.tensor(loss), {})
        if step % 2 == 0 or step == len(losses):
            made.read(step)
    return made


@pytest.mark.parametrize(
    "losses",
    [
        (6.24, 60.0, 400.0, 90.0, 6.3, 6.24),  # a rate of 1e3 from the first step on
        (6.2, 5.0, 3.0, 2.5, 6.2, 6.24),  # learned, then lost
        (6.2, 5.0, 3.0, 2.5, 9.0, 9.0),
    ],
)
def test_a_training_that_ends_at_a_uniform_guess_has_collapsed(losses: tuple[float, ...]) -> None:
    assert curve(*losses).has_collapsed(UNIFORM)


@pytest.mark.parametrize(
    "losses",
    [
        (6.26, 6.24, 6.23, 6.2),  # a smoke test
        (6.2, 5.0, 4.0, 3.0),
        (6.24, 60.0, 30.0, 9.0, 5.0, 4.0),  # a spike, survived
        (14.0, 12.0, 8.0, 6.3),  # large logits at first, on their way
        (6.2, 5.0, 4.0, 3.0, 7.2),  # one strange text at the very end, alone in its interval
        (),
    ],
)
def test_a_short_or_a_good_training_has_not(losses: tuple[float, ...]) -> None:
    assert not curve(*losses).has_collapsed(UNIFORM)


def test_one_text_in_a_short_interval_is_no_divergence() -> None:
    assert not curve(6.2, 5.0, 1.0, 3.0, 7.2).has_diverged(3.0)
    assert curve(6.2, 5.0, 1.0, 3.0, 7.2, 7.0).has_diverged(3.0)


def test_a_resumed_curve_still_knows() -> None:
    before = curve(6.24, 400.0, 6.3, 6.24)
    after = curve()
    after.load_state_dict(before.state_dict())
    assert after.has_collapsed(UNIFORM)
