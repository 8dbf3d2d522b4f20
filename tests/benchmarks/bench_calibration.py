"""The decision rule: errors, power, coverage over a grid of designs; the numbers of docs/calibration.md."""

from __future__ import annotations

from typing import Any

import pytest
from bench import show
from simulated_tables import (
    checkpoint_error,
    coverage,
    family_error,
    power,
    wrong_from_one_pretraining,
)

pytestmark = pytest.mark.slow

TABLES = 1000
SEEDS = (3, 4, 5, 7, 10)
LIMIT = 0.05 + 3 * (0.05 * 0.95 / TABLES) ** 0.5
"""5 % and three standard errors of the simulation."""


def designs(cells: int) -> dict[str, dict[str, Any]]:
    """Tables in which nothing differs, by what is not ideal about them."""
    return {
        "normal": {},
        "t3": {"noise": "t3"},
        "lognormal": {"noise": "lognormal"},
        **{f"one arm {times}x noisier": {"noisy": 1, "times": float(times)} for times in (3, 5, 10)},
        **{f"the baseline {times}x noisier": {"noisy": 0, "times": float(times)} for times in (3, 5, 10)},
        f"{cells // 2} runs missing": {"missing": cells // 2},
        "three arms to a pretraining run": {"shared": 3},
    }


def percent(rate: float) -> str:
    return f"{100 * rate:.1f}"


def by_seeds() -> list[str]:
    return [f"{seeds} seeds" for seeds in SEEDS]


@pytest.mark.parametrize("cells", [3, 6, 13, 25])
def test_family_errors_stay_at_five_percent(cells: int) -> None:
    rows, worst = [], 0.0
    for name, design in designs(cells).items():
        rates = [family_error(TABLES, cells=cells, seeds=seeds, **design) for seeds in SEEDS]
        rows.append([name, *map(percent, rates)])
        worst = max(worst, *rates)
    title = f"Tables of {cells} cells without any effect that mark one (%)"
    show(title, ["noise", *by_seeds()], rows, kind="calibration")
    assert worst <= LIMIT


def test_power_beside_the_old_rule() -> None:
    found = {
        effect: [power(TABLES, effect=effect, cells=13, seeds=seeds) for seeds in SEEDS]
        for effect in (2, 3, 5, 10)
    }
    rows = [
        [f"{effect} seed SDs, {rule}", *(percent(rates[place]) for rates in by_seed)]
        for effect, by_seed in found.items()
        for place, rule in enumerate(("now", "before"))
    ]
    show("Tables of 13 cells that mark a true effect (%)", ["effect", *by_seeds()], rows, kind="calibration")
    assert all(now >= before for by_seed in found.values() for now, before in by_seed)
    assert found[5][0][0] >= 0.8, "5 SDs at 3 seeds"


def test_intervals_of_a_table_cover_together() -> None:
    found = {
        noise: [coverage(TABLES, cells=13, seeds=seeds, noise=noise) for seeds in SEEDS]
        for noise in ("normal", "t3", "lognormal")
    }
    rows = [[noise, *map(percent, rates)] for noise, rates in found.items()]
    title = "Tables of 13 cells with effects whose 95 % intervals all hold the truth (%)"
    show(title, ["noise", *by_seeds()], rows, kind="calibration")
    assert min(map(min, found.values())) >= 1 - LIMIT


def test_one_pretraining_run_speaks_for_itself_alone() -> None:
    rows, given = [], []
    for luck in (0.5, 1.0, 2.0):
        rates = [wrong_from_one_pretraining(TABLES, cells=13, seeds=seeds, luck=luck) for seeds in SEEDS]
        given += [here for here, _ in rates]
        for place, about in enumerate(("this pretrained model", "pretrained models at large")):
            rows.append([f"{luck} seed SDs, about {about}", *(percent(r[place]) for r in rates)])
    title = "Tables of 13 cells from one pretraining run with a wrong interval (%)"
    show(title, ["what the run does to effects", *by_seeds()], rows, kind="calibration")
    assert max(given) <= LIMIT


def test_families_of_checkpoints_err_in_five_percent() -> None:
    rows, worst = [], 0.0
    sizes = (30, 120, 500)
    for graded in (False, True):
        for checkpoints in (2, 12):
            rates = [
                checkpoint_error(TABLES, checkpoints=checkpoints, documents=size, graded=graded)
                for size in sizes
            ]
            what = "graded answers" if graded else "right or wrong"
            rows.append([f"{what}, {checkpoints} comparisons", *map(percent, rates)])
            worst = max(worst, *rates)
    title = "Families of equally good checkpoints, decided over documents, that mark one (%)"
    show(title, ["answers", *(f"{size} documents" for size in sizes)], rows, kind="calibration")
    assert worst <= LIMIT
