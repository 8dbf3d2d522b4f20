"""The decision rule on simulated tables: family-wise errors, coverage, power beside the old rule's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from harness.report.decisions import interval
from harness.report.documents import max_t_bootstrap
from harness.report.model import SeedModel
from harness.report.simultaneous import MaxT

Draw = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]

NOISE: dict[str, Draw] = {
    "normal": lambda rng, shape: rng.normal(size=shape),
    "t3": lambda rng, shape: rng.standard_t(3, size=shape),
    "lognormal": lambda rng, shape: np.exp(rng.normal(size=shape)),
}


def table(
    rng: np.random.Generator,
    *,
    cells: int,
    seeds: int,
    noise: str = "normal",
    noisy: int | None = None,
    times: float = 1.0,
    missing: int = 0,
) -> np.ndarray:
    """Cells x seeds without any effect: a block for the seed, and noise that one arm may have more of."""
    values_CS = NOISE[noise](rng, (cells, seeds))
    if noisy is not None:
        values_CS[noisy] *= times
    values_CS = values_CS + rng.normal(0, 2, seeds)
    for place in rng.permutation((cells - 1) * seeds)[:missing]:
        values_CS[1 + place // seeds, place % seeds] = np.nan
    return values_CS


def decided(values_CS: np.ndarray, *, paths: list[tuple[int, ...]] | None = None) -> np.ndarray:
    """Difference to the first cell, half interval and p of each other cell: what a table does."""
    cells = len(values_CS)
    tree = paths or [(i,) for i in range(cells)]
    model = SeedModel(values_CS, paths=tree, replicated_C=[True] * cells)
    v = model.leaf_variances
    together = paths is None
    family = MaxT([(v[0] / (v[0] + v[i])) ** 0.5 if together else 0.0 for i in range(1, cells)])
    rows = []
    for i in range(1, cells):
        seeds = np.flatnonzero(~np.isnan(values_CS[[0, i]]).any(axis=0))
        if len(seeds) < 3:
            rows.append((0.0, np.inf, 1.0))
            continue
        weights = np.zeros(cells)
        weights[i], weights[0] = 1.0, -1.0
        parts = model.parts(weights, [int(s) for s in seeds])
        found = interval(parts, family)
        rows.append((float(parts.per_seed_S.mean()), found.half, found.p))
    return np.array(rows)


def family_error(tables: int, **options: object) -> float:
    """Share of tables without any effect that mark one."""
    rng = np.random.default_rng([int(x) for x in str(sorted(options.items())).encode()])
    found = 0
    for _ in range(tables):
        d_K, half_K, p_K = decided(table(rng, **options)).T  # type: ignore[arg-type]
        marked_K = np.abs(d_K) > half_K
        assert (marked_K == (p_K <= 0.05)).all(), "a mark and its p say the same"
        found += bool(marked_K.any())
    return found / tables


CASES = [
    {"cells": 13, "seeds": 3},
    {"cells": 13, "seeds": 3, "noise": "t3"},
    {"cells": 13, "seeds": 3, "noise": "lognormal"},
    {"cells": 13, "seeds": 3, "noisy": 1, "times": 5.0},
    {"cells": 13, "seeds": 3, "noisy": 1, "times": 10.0},
    {"cells": 13, "seeds": 3, "noisy": 0, "times": 5.0},
    {"cells": 13, "seeds": 3, "noisy": 0, "times": 10.0},
    {"cells": 13, "seeds": 5, "noisy": 0, "times": 5.0},
    {"cells": 13, "seeds": 5, "noise": "lognormal", "missing": 6},
    {"cells": 5, "seeds": 4, "noisy": 1, "times": 10.0, "missing": 2},
    {"cells": 4, "seeds": 10, "noise": "t3"},
    {"cells": 2, "seeds": 3},
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: " ".join(f"{k}={v}" for k, v in c.items()))
def test_without_an_effect_few_tables_mark_one(case: dict[str, object]) -> None:
    """250 tables: 5 % and three standard errors of the simulation."""
    assert family_error(250, **case) <= 0.05 + 3 * (0.05 * 0.95 / 250) ** 0.5


@pytest.mark.slow
@pytest.mark.parametrize("cells", [3, 6, 13, 25])
@pytest.mark.parametrize("seeds", [3, 4, 5, 7, 10])
def test_family_errors_stay_at_five_percent(seeds: int, cells: int) -> None:
    """2,000 tables of each kind: 5 % and three standard errors."""
    kinds: list[dict[str, object]] = [{"noise": noise} for noise in NOISE]
    kinds += [{"noisy": arm, "times": times} for arm in (0, 1) for times in (3.0, 5.0, 10.0)]
    kinds += [{"missing": cells // 2}]
    for kind in kinds:
        rate = family_error(2000, cells=cells, seeds=seeds, **kind)
        print(f"{cells} cells, {seeds} seeds, {kind}: {rate:.4f}")
        assert rate <= 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5, kind


def old_rule(values_CS: np.ndarray, *, metrics: int = 4) -> np.ndarray:
    """Paired t, Holm over a table of several metrics: what was shipped before. The largest decides first."""
    from scipy.stats import ttest_1samp

    p_K = ttest_1samp(values_CS[1:] - values_CS[0], 0, axis=1).pvalue
    return np.asarray(p_K * metrics * len(p_K) <= 0.05)


def power(tables: int, *, effect: float, cells: int, seeds: int) -> tuple[float, float]:
    """How often an effect of so many seed standard deviations is marked, now and before."""
    rng = np.random.default_rng(cells * 100 + seeds)
    now = before = 0
    for _ in range(tables):
        values_CS = table(rng, cells=cells, seeds=seeds)
        values_CS[1] += effect
        d_K, half_K, _ = decided(values_CS).T
        now += bool(d_K[0] > half_K[0])
        before += bool(old_rule(values_CS)[0])
    return now / tables, before / tables


def test_five_standard_deviations_are_marked_in_four_of_five_tables() -> None:
    now, before = power(500, effect=5, cells=13, seeds=3)
    assert now >= 0.8
    assert before < 0.1, "the rule it replaced missed them"


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [3, 4, 5, 10])
def test_power_beside_the_old_rule(seeds: int) -> None:
    for effect in (2, 3, 5, 10):
        now, before = power(1000, effect=effect, cells=13, seeds=seeds)
        print(f"{seeds} seeds, effect {effect} SD: {now:.3f}, before {before:.3f}")
        assert now >= before


@pytest.mark.parametrize("noise", list(NOISE))
def test_intervals_of_a_table_cover_together(noise: str) -> None:
    """With effects: all intervals of a table hold their truth in 95 % of tables."""
    rng = np.random.default_rng(5)
    truth_C = np.arange(8) * 1.5
    covered = 0
    for _ in range(250):
        d_K, half_K, _ = decided(table(rng, cells=8, seeds=4, noise=noise) + truth_C[:, None]).T
        covered += bool((np.abs(d_K - truth_C[1:]) <= half_K).all())
    assert covered / 250 >= 0.95 - 3 * (0.05 * 0.95 / 250) ** 0.5


def test_cells_that_share_runs_are_no_replicates_of_them() -> None:
    """Two tuned models, each quantized four ways: between them, four copies of one luck decide nothing."""
    rng = np.random.default_rng(6)
    paths = [(g, 4 * g + i) for g in range(2) for i in range(4)]
    wrong = 0
    for _ in range(250):
        runs_GS = rng.normal(0, 1, (2, 3))
        values_CS = np.repeat(runs_GS, 4, axis=0) + rng.normal(0, 0.02, (8, 3))
        d_K, half_K, _ = decided(values_CS, paths=paths).T
        wrong += bool((np.abs(d_K) > half_K).any())
    assert wrong / 250 <= 0.05 + 3 * (0.05 * 0.95 / 250) ** 0.5


def test_inside_a_shared_run_small_differences_are_seen() -> None:
    """The same models: 4 bits cost a tenth of the luck of tuning, and five times the noise of quantizing."""
    rng = np.random.default_rng(7)
    paths = [(g, 4 * g + i) for g in range(2) for i in range(4)]
    found = 0
    for _ in range(100):
        values_CS = np.repeat(rng.normal(0, 1, (2, 3)), 4, axis=0) + rng.normal(0, 0.02, (8, 3))
        values_CS[3] += 0.1
        d_K, half_K, _ = decided(values_CS, paths=paths).T
        found += bool(d_K[2] > half_K[2])
    assert found >= 75


@pytest.mark.parametrize("kind", ["binary", "graded"])
def test_without_an_effect_few_families_of_checkpoints_mark_one(kind: str) -> None:
    """Twelve checkpoints of equal skill against one, on the same 120 documents."""
    rng = np.random.default_rng(8)
    wrong = 0
    for _ in range(250):
        difficulty_D = rng.normal(0, 1, 120)
        answers_CD = (rng.random((13, 120)) < 1 / (1 + np.exp(difficulty_D))).astype(float)
        if kind == "graded":
            answers_CD = answers_CD + rng.exponential(1.0, answers_CD.shape)
        found = max_t_bootstrap([row - answers_CD[0] for row in answers_CD[1:]], level=0.05)
        wrong += any(not low <= 0 <= high for low, high, _, _ in found)
    assert wrong / 250 <= 0.05 + 3 * (0.05 * 0.95 / 250) ** 0.5


def test_few_documents_that_differ_decide_nothing() -> None:
    """Three answers of two hundred, all to one side: an exact test gives p = 0.25."""
    d_D = np.zeros(200)
    d_D[:3] = 1.0
    ((low, high, p, _),) = max_t_bootstrap([d_D], level=0.05)
    assert low < 0 < high
    assert p > 0.05
