"""Simulated tables, the decision rule on them and the rule before it: errors and power are counted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from harness.report.documents import max_t_bootstrap
from harness.report.intervals import interval
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
    shared: int = 1,
) -> np.ndarray:
    """Cells x seeds without any effect: a block for the seed, and noise that one arm may have more of.

    So many cells in a row are `shared` by one run of the same noise, of which each keeps a third of its own.
    """
    values_CS = NOISE[noise](rng, (cells, seeds))
    if noisy is not None:
        values_CS[noisy] *= times
    if shared > 1:
        runs_GS = NOISE[noise](rng, (cells // shared + 1, seeds))
        values_CS = np.repeat(runs_GS, shared, axis=0)[:cells] + values_CS / 3
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
    counts_C = np.array([cells - 1, *[1] * (cells - 1)])
    rows = []
    for i in range(1, cells):
        seeds = np.flatnonzero(~np.isnan(values_CS[[0, i]]).any(axis=0))
        if len(seeds) < 3:
            rows.append((0.0, np.inf, 1.0))
            continue
        weights = np.zeros(cells)
        weights[i], weights[0] = 1.0, -1.0
        parts = model.parts(weights, [int(s) for s in seeds])
        found = interval(parts, family, together_A=model.together(parts, counts_C))
        rows.append((float(parts.per_seed_S.mean()), found.half, found.p))
    return np.array(rows)


def seeded(options: dict[str, Any]) -> np.random.Generator:
    """Other options, other draws; the same ones at each call."""
    return np.random.default_rng([int(x) for x in str(sorted(options.items())).encode()])


def family_error(tables: int, **options: Any) -> float:
    """Share of tables without any effect that mark one."""
    rng = seeded(options)
    shared = options.get("shared", 1)
    paths = [(i // shared, i) for i in range(options["cells"])] if shared > 1 else None
    found = 0
    for _ in range(tables):
        d_K, half_K, p_K = decided(table(rng, **options), paths=paths).T
        marked_K = np.abs(d_K) > half_K
        assert (marked_K == (p_K <= 0.05)).all(), "a mark and its p say the same"
        found += bool(marked_K.any())
    return found / tables


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


def coverage(tables: int, *, cells: int, seeds: int, noise: str = "normal") -> float:
    """Share of tables, with effects, whose intervals all hold their truth."""
    rng = seeded({"cells": cells, "seeds": seeds, "noise": noise})
    truth_C = np.arange(cells) * 1.5
    found = 0
    for _ in range(tables):
        d_K, half_K, _ = decided(table(rng, cells=cells, seeds=seeds, noise=noise) + truth_C[:, None]).T
        found += bool((np.abs(d_K - truth_C[1:]) <= half_K).all())
    return found / tables


def wrong_from_one_pretraining(tables: int, *, cells: int, seeds: int, luck: float) -> tuple[float, float]:
    """Share of tables with a wrong interval: about this pretrained model, and about pretrained models.

    `luck` is the standard deviation, in those of seeds, of what one pretrained model does to a method's
    effect; over all pretrained models no method differs.
    """
    rng = seeded({"cells": cells, "seeds": seeds, "luck": luck})
    given = all_of_them = 0
    for _ in range(tables):
        here_C = rng.normal(0, luck, cells)
        d_K, half_K, _ = decided(table(rng, cells=cells, seeds=seeds) + here_C[:, None]).T
        given += bool((np.abs(d_K - (here_C[1:] - here_C[0])) > half_K).any())
        all_of_them += bool((np.abs(d_K) > half_K).any())
    return given / tables, all_of_them / tables


def checkpoint_error(tables: int, *, checkpoints: int, documents: int, graded: bool) -> float:
    """Share of families of equally good checkpoints against one, over the same documents, that mark one."""
    rng = seeded({"checkpoints": checkpoints, "documents": documents, "graded": graded})
    wrong = 0
    for _ in range(tables):
        difficulty_D = rng.normal(0, 1, documents)
        right = rng.random((checkpoints + 1, documents)) < 1 / (1 + np.exp(difficulty_D))
        answers_CD = right.astype(float)
        if graded:
            answers_CD = answers_CD + rng.exponential(1.0, answers_CD.shape)
        found = max_t_bootstrap([row - answers_CD[0] for row in answers_CD[1:]], level=0.05)
        wrong += any(not low <= 0 <= high for low, high, _, _ in found)
    return wrong / tables
