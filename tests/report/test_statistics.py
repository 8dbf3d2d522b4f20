"""Tests and intervals: against scipy and statsmodels, and calibrated on simulated tables."""

from __future__ import annotations

import numpy as np
import pytest
import simulate

from harness.report import statistics
from harness.report.statistics import Comparison, Measured


def measured(answers_SN: np.ndarray) -> Measured:
    """One cell of a simulated table."""
    values = {seed: float(row.mean()) for seed, row in enumerate(answers_SN)}
    return Measured(values=values, items_SD=answers_SN, num_items=answers_SN.shape[1])


def table_of(
    rng: np.random.Generator, *, seeds: int, seed_sd: float, shift: float = 0.0, items: bool = True
) -> list[Comparison]:
    """Four cells against a baseline, Holm over the four; `shift` in logits moves all four."""
    effect = np.array([0.0, *[shift] * 4])
    answers = simulate.draw(rng, cells=5, seeds=seeds, items=150, effect=effect, seed_sd=seed_sd)
    sides = [measured(cell) for cell in answers]
    if not items:
        sides = [Measured(values=side.values) for side in sides]
    found = [statistics.compare(side, sides[0]) for side in sides[1:]]
    adjusted = statistics.holm([1.0 if c.p is None else c.p for c in found])
    return [
        Comparison(**{**c.__dict__, "p_holm": p if c.p is not None else None})
        for c, p in zip(found, adjusted, strict=True)
    ]


def false_positive_rates(
    *, tables: int, seeds: int, seed_sd: float, items: bool = True
) -> tuple[float, float]:
    """Share of comparisons with p <= 5 % and of tables with any after Holm, among claims about methods."""
    rng = np.random.default_rng(seeds * 1000 + int(seed_sd * 100))
    single, family = 0, 0
    for _ in range(tables):
        about = [c for c in table_of(rng, seeds=seeds, seed_sd=seed_sd, items=items) if c.about == "methods"]
        single += sum(c.p is not None and c.p <= 0.05 for c in about)
        family += any(c.significant for c in about)
    return single / (4 * tables), family / tables


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_under_no_effect_few_tables_claim_one(seeds: int) -> None:
    single, family = false_positive_rates(tables=200, seeds=seeds, seed_sd=0.15)
    assert single <= 0.08, "200 tables: 5 % with their own sampling error"
    assert family <= 0.10


@pytest.mark.slow
@pytest.mark.parametrize("seed_sd", [0.0, 0.15, 0.3])
@pytest.mark.parametrize("seeds", [2, 3, 5, 10])
def test_false_positives_stay_at_five_percent_over_two_thousand_tables(seeds: int, seed_sd: float) -> None:
    # Without items: they only add the tests of fixed checkpoints, which are slow and not counted here.
    single, family = false_positive_rates(tables=2000, seeds=seeds, seed_sd=seed_sd, items=False)
    print(f"seeds {seeds} sd {seed_sd}: single {single:.4f} family {family:.4f}")
    assert single <= 0.065
    assert family <= 0.065
    if seeds < statistics.MIN_SEEDS:
        assert single == family == 0, "two seeds are undecided about methods"


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_mixed_model_holds_its_level_over_two_thousand_tables(seeds: int) -> None:
    """Five cells of equal skill on the same items; every cell against the first, Holm over the table."""
    rng = np.random.default_rng(seeds)
    single, family = 0, 0
    for _ in range(2000):
        answers = simulate.draw(rng, cells=5, seeds=seeds, items=60, effect=np.zeros(5), seed_sd=0.15)
        found = statistics.mixed_model(answers.mean(axis=2), baseline=0)[1:]
        p_values = [c.p for c in found if c.p is not None]
        single += sum(p <= 0.05 for p in p_values)
        family += any(p <= 0.05 for p in statistics.holm(p_values))
    assert single / 8000 <= 0.065
    assert family / 2000 <= 0.065


def test_two_seeds_are_undecided_about_methods_whatever_the_effect() -> None:
    rng = np.random.default_rng(1)
    for found in table_of(rng, seeds=2, seed_sd=0.1, shift=3.0):
        assert found.about == "checkpoints"
        assert "2 seeds where 3 are needed" in found.reason


@pytest.mark.parametrize("seed_sd", [0.0, 0.2])
def test_a_fixed_checkpoint_test_holds_its_level_over_items(seed_sd: float) -> None:
    """Two checkpoints of equal skill on the items' population, binary (McNemar) and graded (bootstrap)."""
    rng = np.random.default_rng(3)
    hits = {"McNemar": 0, "paired bootstrap": 0}
    for _ in range(400):
        answers = simulate.draw(rng, cells=2, seeds=1, items=100, effect=np.zeros(2), seed_sd=0.0)
        graded = answers + rng.normal(0, 0.3 + seed_sd, answers.shape)
        for a, b in ((answers[0], answers[1]), (graded[0], graded[1])):
            found = statistics.paired_items(a, b)
            hits[found.test] += found.p is not None and found.p <= 0.05
    for test, count in hits.items():
        assert count / 400 <= 0.075, f"{test}: {count} of 400"


def power_at_detectable(*, seeds: int, trials: int) -> float:
    """Share of paired t tests that find a true difference of the stated smallest detectable size."""
    rng = np.random.default_rng(seeds)
    stderr = 1 / seeds**0.5
    size = statistics.detectable(stderr=stderr, df=seeds - 1)
    draws = rng.normal(size, 1, (trials, seeds))
    return float(np.mean([statistics.paired_t(d).p <= 0.05 for d in draws]))  # type: ignore[operator]


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_smallest_detectable_effect_is_found_with_the_stated_power(seeds: int) -> None:
    assert power_at_detectable(seeds=seeds, trials=2000) == pytest.approx(statistics.POWER, abs=0.05)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_the_stated_power_is_reached_on_simulated_answers(seeds: int) -> None:
    """The logit shift whose difference equals the detectable one at the spread that seeds really have."""
    rng = np.random.default_rng(7 * seeds)
    effect = np.zeros(2)
    spread = simulate.draw(rng, cells=2, seeds=4000, items=150, effect=effect, seed_sd=0.15).mean(axis=2)
    sd = float((spread[1] - spread[0]).std())
    size = statistics.detectable(stderr=sd / seeds**0.5, df=seeds - 1)
    shift = size / 0.2066  # slope of accuracy in logits under the simulator's difficulty ~ N(0, 1)
    found, trials = 0, 600
    for _ in range(trials):
        a, b = simulate.draw(rng, cells=2, seeds=seeds, items=150, effect=np.array([shift, 0]), seed_sd=0.15)
        p = statistics.compare(measured(a), measured(b)).p
        found += p is not None and p <= 0.05
    assert found / trials == pytest.approx(statistics.POWER, abs=0.05)


def test_paired_t_equals_scipy() -> None:
    from scipy.stats import ttest_1samp

    d = np.random.default_rng(0).normal(0.3, 1, 7)
    found, oracle = statistics.paired_t(d), ttest_1samp(d, 0)
    interval = oracle.confidence_interval(0.95)
    assert found.p == pytest.approx(oracle.pvalue, rel=1e-10)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))


def test_mcnemar_equals_statsmodels() -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    assert statistics.mcnemar(17, 6) == pytest.approx(mcnemar([[30, 17], [6, 40]], exact=True).pvalue)
    assert statistics.mcnemar(0, 0) == 1.0


def test_holm_equals_statsmodels() -> None:
    from statsmodels.stats.multitest import multipletests

    p = list(np.random.default_rng(0).random(20) ** 3)
    assert statistics.holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))
    assert statistics.holm([]) == []


def test_detectable_effect_equals_statsmodels() -> None:
    from statsmodels.stats.power import TTestPower

    oracle = TTestPower().solve_power(nobs=6, alpha=0.05, power=0.8) * 6**0.5
    assert statistics.noncentrality(5, 0.05, 0.8) == pytest.approx(oracle, rel=1e-5)


def test_bootstrap_interval_covers_and_equals_scipy_in_the_large() -> None:
    from scipy.stats import bootstrap

    d = np.random.default_rng(2).exponential(1.0, 400) - 0.9
    p, low, high = statistics.bootstrap(d)
    oracle = bootstrap((d,), np.mean, n_resamples=5000, random_state=0).confidence_interval
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.02)
    assert (p <= 0.05) == (low > 0 or high < 0)


def test_mixed_model_equals_statsmodels() -> None:
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.2, (4, 6)) + rng.normal(0, 0.5, 6) + np.array([0, 0.1, 0.5, 0.9])[:, None]
    found = statistics.mixed_model(values, baseline=0)
    rows = [{"cell": c, "seed": s, "value": values[c, s]} for c in range(4) for s in range(6)]
    oracle = MixedLM.from_formula("value ~ C(cell)", groups="seed", data=pd.DataFrame(rows)).fit(reml=True)
    for c in (1, 2, 3):
        assert found[c].difference == pytest.approx(oracle.params[f"C(cell)[T.{c}]"])
        assert found[c].stderr == pytest.approx(oracle.bse[f"C(cell)[T.{c}]"], rel=1e-3)


def test_seeds_that_all_agree_are_no_replicates() -> None:
    """A deterministic method after shared stages gives one answer for all seeds: no t test on it."""
    rng = np.random.default_rng(5)
    a, b = (np.repeat((rng.random((1, 80)) < p).astype(float), 3, axis=0) for p in (0.7, 0.4))
    found = statistics.compare(measured(a), measured(b))
    assert found.about == "checkpoints"
    assert found.test == "McNemar"
    assert "no replicates" in found.reason


def test_two_items_are_not_tested() -> None:
    found = statistics.compare(measured(np.array([[1.0, 1.0]])), measured(np.array([[0.0, 0.0]])))
    assert found.p is None
    assert "only 2 items" in found.reason
    assert statistics.estimate(measured(np.array([[1.0, 0.0]]))).basis == "none"


def test_no_seed_in_common_is_said() -> None:
    found = statistics.compare(Measured(values={0: 1.0}), Measured(values={1: 2.0}))
    assert found.about == "nothing"
    assert found.reason == "no seed in common"


def test_items_scored_by_one_side_alone_are_left_out() -> None:
    a = np.array([[1.0, 0.0] * 10 + [np.nan] * 5])
    b = np.array([[1.0, 1.0] * 10 + [1.0] * 5])
    assert statistics.paired_items(a, b).num_items == 20
