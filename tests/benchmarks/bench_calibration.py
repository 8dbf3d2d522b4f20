"""The decision rule: errors, power, coverage over a grid of designs; the numbers of docs/calibration.md."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from bench import show
from simulated_tables import (
    NOISE,
    checkpoint_error,
    coverage,
    family_error,
    power,
    wrong_from_one_pretraining,
)

pytestmark = pytest.mark.slow

TABLES = 600
SEEDS = (3, 5, 10)
LIMIT = 0.05 + 3 * (0.05 * 0.95 / TABLES) ** 0.5
"""5 % and three standard errors of the simulation."""


def designs(cells: int) -> dict[str, dict[str, Any]]:
    """Tables in which nothing differs, by what is not ideal about them."""
    return {
        "normal": {},
        "t3": {"noise": "t3"},
        "lognormal": {"noise": "lognormal"},
        **{f"one arm {times}x": {"noisy": 1, "times": float(times)} for times in (3, 5, 10)},
        **{f"baseline {times}x": {"noisy": 0, "times": float(times)} for times in (3, 5, 10)},
        "runs missing": {"missing": cells // 2},
        "three arms a run": {"shared": 3},
    }


def tell(title: str, first: str, rates: Mapping[str, Mapping[str, float]]) -> None:
    """Rates by row and column, for docs/calibration.md."""
    columns = [first, *next(iter(rates.values()))]
    rows = [[name, *(f"{100 * rate:.1f}" for rate in row.values())] for name, row in rates.items()]
    show(f"{title} (%)", columns, rows, raw={"tables": TABLES}, kind="calibration")


def by_seeds(rates: Iterable[float]) -> dict[str, float]:
    return {f"{seeds} seeds": rate for seeds, rate in zip(SEEDS, rates, strict=True)}


@pytest.mark.parametrize(
    ("cells", "seeds"), [*itertools.product((3, 6, 25), SEEDS), *((13, seeds) for seeds in (3, 4, 5, 7, 10))]
)
def test_family_errors_stay_at_five_percent(cells: int, seeds: int) -> None:
    found = {
        name: family_error(TABLES, cells=cells, seeds=seeds, **design)
        for name, design in designs(cells).items()
    }
    name = f"{cells} cells, {seeds} seeds"
    tell("Tables without any effect that mark one", "noise", {name: found})
    assert max(found.values()) <= LIMIT


@pytest.mark.parametrize("effect", [2, 3, 5, 10])
def test_power_beside_the_old_rule(effect: int) -> None:
    found = [power(TABLES, effect=effect, cells=13, seeds=seeds) for seeds in SEEDS]
    rules = {
        f"{effect} seed SDs, {rule}": by_seeds(rates)
        for rule, rates in zip(("now", "before"), zip(*found, strict=True), strict=True)
    }
    tell("Tables of 13 cells that mark a true effect", "effect", rules)
    assert all(now >= before for now, before in found)
    assert effect < 5 or found[0][0] >= 0.8, "5 SDs at 3 seeds"


@pytest.mark.parametrize("noise", list(NOISE))
def test_intervals_of_a_table_cover_together(noise: str) -> None:
    found = by_seeds(coverage(TABLES, cells=13, seeds=seeds, noise=noise) for seeds in SEEDS)
    tell("Tables of 13 cells with effects whose 95 % intervals all hold the truth", "noise", {noise: found})
    assert min(found.values()) >= 1 - LIMIT


@pytest.mark.parametrize("luck", [0.5, 2.0])
def test_one_pretraining_run_speaks_for_itself_alone(luck: float) -> None:
    rates = [wrong_from_one_pretraining(TABLES, cells=13, seeds=seeds, luck=luck) for seeds in SEEDS]
    here, at_large = zip(*rates, strict=True)
    first = "SD of what a pretrained model does to an effect, in seed SDs"
    found = {f"{luck}, about this model": here, f"{luck}, about such models": at_large}
    title = "Tables of 13 cells from one pretraining run with a wrong interval"
    tell(title, first, {name: by_seeds(row) for name, row in found.items()})
    assert max(here) <= LIMIT


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("checkpoints", [2, 12])
def test_families_of_checkpoints_err_in_five_percent(checkpoints: int, graded: bool) -> None:
    found = {
        f"{size} documents": checkpoint_error(TABLES, checkpoints=checkpoints, documents=size, graded=graded)
        for size in (30, 120, 500)
    }
    answers = "graded" if graded else "right or wrong"
    name = f"{answers}, {checkpoints} comparisons"
    tell("Equally good checkpoints, over documents: families that mark one", "answers", {name: found})
    assert max(found.values()) <= LIMIT
