"""The decision rule on simulated tables: family-wise errors, coverage, power beside the old rule's."""

from __future__ import annotations

import numpy as np
import pytest
from simulated_tables import NOISE, checkpoint_error, coverage, decided, family_error, power

from harness.report.documents import max_t_bootstrap

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


def test_five_standard_deviations_are_marked_in_four_of_five_tables() -> None:
    now, before = power(500, effect=5, cells=13, seeds=3)
    assert now >= 0.8
    assert before < 0.1, "the rule it replaced missed them"


@pytest.mark.parametrize("noise", list(NOISE))
def test_intervals_of_a_table_cover_together(noise: str) -> None:
    assert coverage(250, cells=8, seeds=4, noise=noise) >= 0.95 - 3 * (0.05 * 0.95 / 250) ** 0.5


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


@pytest.mark.parametrize("graded", [False, True])
def test_without_an_effect_few_families_of_checkpoints_mark_one(graded: bool) -> None:
    rate = checkpoint_error(250, checkpoints=12, documents=120, graded=graded)
    assert rate <= 0.05 + 3 * (0.05 * 0.95 / 250) ** 0.5


def test_few_documents_that_differ_decide_nothing() -> None:
    """Three answers of two hundred, all to one side: an exact test gives p = 0.25."""
    d_D = np.zeros(200)
    d_D[:3] = 1.0
    ((low, high, p, _),) = max_t_bootstrap([d_D], level=0.05)
    assert low < 0 < high
    assert p > 0.05
