"""What every schedule must do."""

from __future__ import annotations

import itertools
import math

from harness.axes.schedule import Schedule

AXIS = "schedule"

POINTS = [i / 1000 for i in range(1001)]


def factors(schedule: Schedule) -> list[float]:
    """The factor all through a run of 1,000 steps."""
    return [schedule.factor(p, min(round(p * 1000), 999), 1000) for p in POINTS]


def test_the_factor_stays_between_zero_and_one(method: type[Schedule]) -> None:
    for value in factors(method()):
        assert math.isfinite(value), "a factor is not finite"
        assert 0 <= value <= 1, "the stage's learning rate is the peak"


def test_the_warm_up_rises_in_a_straight_line_from_zero(method: type[Schedule]) -> None:
    schedule = method(method.Config(warmup_share=0.2))
    for progress in (0.0, 0.05, 0.1, 0.15):
        value = schedule.factor(progress, round(progress * 1000), 1000)
        assert math.isclose(value, progress / 0.2, abs_tol=1e-9), (
            "the warm-up is no straight line from 0: override `decay`, and leave `factor` to the base"
        )


def test_it_reaches_the_peak_after_the_warm_up(method: type[Schedule]) -> None:
    for share in (0.0, 0.2):
        assert math.isclose(
            method(method.Config(warmup_share=share)).factor(share, int(1000 * share), 1000), 1
        ), "after the warm-up the factor must be 1"


def test_it_never_rises_after_the_warm_up(method: type[Schedule]) -> None:
    values = factors(method(method.Config(warmup_share=0.0)))
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(values)), (
        "the rate rises after the warm-up"
    )


def test_it_does_not_jump(method: type[Schedule]) -> None:
    values = factors(method())
    jumps = [abs(a - b) for a, b in itertools.pairwise(values)]
    assert max(jumps) < 0.05, "a jump of the learning rate is a restart"


def test_it_follows_progress_and_not_the_unit_of_the_budget(method: type[Schedule]) -> None:
    schedule = method()
    for progress in (0.03, 0.3, 0.9):
        few = schedule.factor(progress, round(progress * 100), 100)
        many = schedule.factor(progress, round(progress * 10_000), 10_000)
        assert math.isclose(few, many, abs_tol=0.02), (
            "a factor depends on the number of steps: follow `progress`"
        )
