"""Intervals of one number, and the pieces of the decision rule against scipy, statsmodels, printed tables."""

from __future__ import annotations

import numpy as np
import pytest

from harness.report import statistics
from harness.report.documents import Documents, apart, max_t_bootstrap
from harness.report.intervals import interval
from harness.report.model import SeedModel, own_parts
from harness.report.runs import replicated, tree
from harness.report.simultaneous import CANDIDATES, MaxT
from harness.report.statistics import Measured
from harness.report.variances import fitted_prior, residual_variances, spread


@pytest.mark.parametrize(
    ("comparisons", "df", "sides", "printed"),
    [
        (2, 5, 2, 3.03),
        (3, 12, 2, 2.68),
        (5, 10, 2, 2.99),
        (9, 60, 2, 2.77),
        (4, 10, 1, 2.47),
        (9, 20, 1, 2.60),
    ],
)
def test_critical_values_are_dunnetts(comparisons: int, df: float, sides: int, printed: float) -> None:
    """Dunnett 1955 and 1964, tables for p = 0.05 with equal group sizes (correlation 1/2)."""
    found = MaxT([0.5**0.5] * comparisons, sides=sides).critical(0.05, df=df)
    assert found == pytest.approx(printed, abs=0.02)


def test_adjusted_levels_equal_scipys_dunnett() -> None:
    from scipy.stats import dunnett

    rng = np.random.default_rng(0)
    samples = [rng.normal(0.4 * i, 1, 6) for i in range(4)]
    oracle = dunnett(*samples[1:], control=samples[0], random_state=0)
    family = MaxT([0.5**0.5] * 3)
    p = np.interp(np.abs(oracle.statistic), CANDIDATES, family.levels(df=20))
    assert p == pytest.approx(oracle.pvalue, abs=4e-3)


def test_one_comparison_is_students_t_and_many_without_correlation_are_bounded_by_sidak() -> None:
    from scipy.stats import t

    for df in (1.5, 2, 7, 40):
        assert MaxT([0.0]).critical(0.05, df=df) == pytest.approx(t.ppf(0.975, df), rel=5e-3)
    sidak = t.ppf(1 - (1 - 0.95 ** (1 / 6)) / 2, 12)
    found = MaxT([0.0] * 6).critical(0.05, df=12)
    assert MaxT([0.7] * 6).critical(0.05, df=12) < found <= sidak * 1.005


def test_residual_variances_are_those_of_least_squares_with_gaps() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0, 1, (5, 4)) + rng.normal(0, 3, 4) + np.arange(5)[:, None]
    values[2, 1] = values[3, 3] = np.nan
    places = [(k, s) for k in range(5) for s in range(4) if not np.isnan(values[k, s])]
    design = np.zeros((len(places), 9))
    for i, (k, s) in enumerate(places):
        design[i, k] = design[i, 5 + s] = 1
    y = np.array([values[place] for place in places])
    hat = design @ np.linalg.pinv(design)
    squares, df = np.zeros(5), np.zeros(5)
    for i, (k, _) in enumerate(places):
        squares[k] += (y - hat @ y)[i] ** 2
        df[k] += 1 - hat[i, i]
    own, own_df = residual_variances(values)
    assert own_df == pytest.approx(df)
    assert own == pytest.approx(squares / df)
    assert own_df.sum() == pytest.approx(len(places) - 5 - 4 + 1)


def test_the_prior_of_many_variances_is_recovered() -> None:
    """s2 ~ s0 F(df, d0), Smyth 2004, equation 4: 4,000 arms of 4 degrees of freedom, d0 = 6, s0 = 2."""
    rng = np.random.default_rng(2)
    variances = 2.0 * 6 / rng.chisquare(6, 4000)
    own = variances * rng.chisquare(4, 4000) / 4
    d0, s0 = fitted_prior(own, np.full(4000, 4.0))
    assert d0 == 6
    assert s0 == pytest.approx(2.0, rel=0.1)


def test_equal_variances_are_pooled_and_an_outlier_keeps_its_own() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(0, 1, (12, 6))
    (even,) = spread([values])
    assert np.ptp(even.moderated) / even.moderated.mean() < 0.7
    values[4] *= 30
    (uneven,) = spread([values])
    assert uneven.moderated[4] > 30 * np.median(uneven.moderated)


def test_two_arms_give_the_paired_t_interval() -> None:
    """With one comparison there is nothing to pool."""
    from scipy.stats import ttest_rel

    a, b = np.random.default_rng(4).normal(0, 1, (2, 5))
    model = SeedModel(np.stack([a, b]), paths=[(0,), (1,)], replicated_C=[True, True])
    parts = model.parts(np.array([1.0, -1.0]), range(5))
    found = interval(parts, MaxT([0.0]))
    oracle = ttest_rel(a, b).confidence_interval(0.95)
    assert parts.df == pytest.approx(4)
    assert found.half == pytest.approx((oracle.high - oracle.low) / 2, rel=6e-3)
    alone = interval(own_parts(a - b), MaxT([0.0]))
    assert alone.half == pytest.approx(found.half)


def test_a_factorial_with_equal_spread_has_the_errors_of_a_mixed_model() -> None:
    """Full pooling: statsmodels' REML fit with the seed as a random block."""
    import pandas as pd
    from statsmodels.regression.mixed_linear_model import MixedLM

    rng = np.random.default_rng(4)
    values = rng.normal(0, 0.2, (4, 40)) + rng.normal(0, 0.5, 40) + np.array([0, 0.1, 0.5, 0.9])[:, None]
    model = SeedModel(values, paths=[(i,) for i in range(4)], replicated_C=[True] * 4)
    rows = [{"cell": c, "seed": s, "value": values[c, s]} for c in range(4) for s in range(40)]
    oracle = MixedLM.from_formula("value ~ C(cell)", groups="seed", data=pd.DataFrame(rows)).fit(reml=True)
    for c in (1, 2, 3):
        weights = np.zeros(4)
        weights[c], weights[0] = 1.0, -1.0
        parts = model.parts(weights, range(40))
        assert parts.per_seed_S.mean() == pytest.approx(oracle.params[f"C(cell)[T.{c}]"])
        assert (parts.variance / 40) ** 0.5 == pytest.approx(oracle.bse[f"C(cell)[T.{c}]"], rel=0.05)


def test_nested_runs_have_the_errors_of_a_split_plot() -> None:
    """3 tuned models x 4 quantizers x many seeds: F denominators of a split plot, by hand."""
    rng = np.random.default_rng(5)
    runs, own = rng.normal(0, 1.0, (3, 1, 400)), rng.normal(0, 0.1, (3, 4, 400))
    values = (runs + own).reshape(12, 400)
    paths = [(g, 4 * g + i) for g in range(3) for i in range(4)]
    model = SeedModel(values, paths=paths, replicated_C=[True] * 12)
    inside = np.zeros(12)
    inside[[0, 1]] = 1.0, -1.0
    assert model.parts(inside, range(400)).variance == pytest.approx(2 * 0.01, rel=0.1)
    between = np.zeros(12)
    between[[0, 4]] = 1.0, -1.0
    assert model.parts(between, range(400)).variance == pytest.approx(2 * (1 + 0.01), rel=0.1)
    averaged = np.repeat([0.25, -0.25, 0.0], 4)
    assert model.parts(averaged, range(400)).variance == pytest.approx(2 * (1 + 0.01 / 4), rel=0.1)
    assert model.parts(between, range(400)).df <= 2 * 399 + 9 * 399


def test_a_cell_that_no_seed_moves_leaves_the_luck_of_the_block_in() -> None:
    rng = np.random.default_rng(6)
    block = rng.normal(0, 3, 300)
    values = np.stack([np.zeros(300), *(block + rng.normal(0, 0.1, (4, 300)))])
    model = SeedModel(values, paths=[(i,) for i in range(5)], replicated_C=[False, *[True] * 4])
    weights = np.array([-1.0, 1.0, 0, 0, 0])
    assert model.parts(weights, range(300)).variance == pytest.approx(9.0, rel=0.15)


def chain(*keys: str) -> dict[str, object]:
    names = ("pretrain", "instruct", "quantize", "evaluate")
    return {"stages": [{"stage": s, "key": k} for s, k in zip(names, keys, strict=False)]}


def test_the_tree_follows_the_runs_that_cells_share() -> None:
    cells = [chain("p", "full", "q8", "e1"), chain("p", "full", "q4", "e2"), chain("p", "lora", "q8l", "e3")]
    paths = tree([[cell] for cell in cells])
    assert len(paths[0]) == 2
    assert paths[0][0] == paths[1][0] != paths[2][0]
    assert len(set(paths)) == 3
    assert tree([[{}], [{}]]) == [(0,), (1,)]
    assert replicated([chain("p", "a"), chain("p", "b")])
    assert not replicated([chain("p", "a"), chain("p", "a")])
    assert replicated([{}, {}])


def test_the_smallest_detectable_effect_equals_statsmodels() -> None:
    from scipy.stats import t
    from statsmodels.stats.power import TTestPower

    oracle = TTestPower().solve_power(nobs=6, alpha=0.05, power=0.8) * 6**0.5
    assert statistics.noncentrality(5, float(t.ppf(0.975, 5)), 0.8) == pytest.approx(oracle, rel=1e-3)


def test_one_comparison_of_documents_equals_scipys_bootstrap_in_the_large() -> None:
    from scipy.stats import bootstrap

    d = np.random.default_rng(2).normal(0.1, 1.0, 400)
    ((low, high, p, _),) = max_t_bootstrap([d], level=0.05)
    oracle = bootstrap((d,), np.mean, n_resamples=5000, random_state=0).confidence_interval
    assert (low, high) == pytest.approx((oracle.low, oracle.high), abs=0.02)
    assert (p <= 0.05) == (low > 0 or high < 0)


def test_the_p_of_documents_is_the_level_at_which_their_interval_ends_at_zero() -> None:
    """As Westfall and Young adjust it: the whole family's, not below the p of one comparison alone."""
    from scipy.stats import ttest_1samp

    rng = np.random.default_rng(9)
    differences = [rng.normal(shift, 1.0, 80) for shift in (0.05, 0.2, 0.3, 0.4, 0.5)]
    adjusted = [p for _, _, p, _ in max_t_bootstrap(differences, level=0.05)]
    step = 2 / 2001
    for k, p in enumerate(adjusted):
        for level, excluded in ((p + step, True), (p - step, False)):
            if 0 < level < 1:
                low, high, _, _ = max_t_bootstrap(differences, level=level)[k]
                assert (low > 0 or high < 0) == excluded, (k, p, level)
        ((_, _, alone, _),) = max_t_bootstrap([differences[k]], level=0.05)
        assert alone == pytest.approx(ttest_1samp(differences[k], 0).pvalue, abs=0.02)
        assert alone <= p + step
    assert min(adjusted) < 0.01 < 0.5 < max(adjusted)


def test_documents_of_several_tasks_are_drawn_apart_and_those_of_one_task_together() -> None:
    """A task beside others keeps the intervals of its own documents, but for what simultaneity asks."""
    rng = np.random.default_rng(3)
    first, second = rng.normal(0.1, 1.0, (2, 400))
    other = rng.normal(0.3, 1.0, 90)
    found = apart(
        [Documents("a", first), Documents("b", other), Documents("a", second), Documents("a", other)]
    )
    assert [len(d) for d in found] == [580] * 4  # the fourth has other documents than its task's first
    there = [~np.isnan(d) for d in found]
    assert (there[0] == there[2]).all()
    assert not (there[0] & there[1]).any()
    assert not (there[1] & there[3]).any()
    together = max_t_bootstrap(found, level=0.05)
    for (low, high, _, stderr), own in zip(together, (first, other, second, other), strict=True):
        ((alone_low, alone_high, _, alone),) = max_t_bootstrap([own], level=0.05)
        assert stderr == pytest.approx(alone)
        assert low + high == pytest.approx(alone_low + alone_high)
        assert alone_high - alone_low < high - low < 1.5 * (alone_high - alone_low)


def test_a_share_has_wilsons_interval_inside_zero_and_one() -> None:
    from statsmodels.stats.proportion import proportion_confint

    for won in (0, 3, 40):
        answers = np.array([[1.0] * won + [0.0] * (40 - won)])
        found = statistics.estimate(Measured(values={0: won / 40}, items_SD=answers, num_items=40))
        assert (found.low, found.high) == pytest.approx(proportion_confint(won, 40, method="wilson"))


def test_two_items_have_no_interval() -> None:
    two = Measured(values={0: 0.5}, items_SD=np.array([[1.0, 0.0]]), num_items=2)
    assert statistics.estimate(two).basis == "none"


def test_a_quantity_with_a_unit_is_no_share_even_where_it_is_zero_everywhere() -> None:
    nothing = np.zeros((1, 40))
    nats = statistics.estimate(Measured(values={0: 0.0}, items_SD=nothing, num_items=40, share=False))
    assert (nats.low, nats.high) == (0.0, 0.0), "the reference diverges from itself by nothing"
    share = statistics.estimate(Measured(values={0: 0.0}, items_SD=nothing, num_items=40))
    assert share.high is not None
    assert share.high > 0.05, "none of 40 is no proof of never"
