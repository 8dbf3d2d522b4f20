"""Views: effects, fronts, curves and ranks against values known beforehand or an independent oracle."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import simulate

from harness.report import arrange, figures, frames, tabulate, views
from harness.report.decisions import Decisions
from harness.report.layout import Layout
from harness.report.record import Record
from harness.report.scored import Scored

FACTORS = {"a": ["a0", "a1"], "b": ["b0", "b1", "b2"]}
SEEDS = range(4)
METRIC = "lm_eval.t.acc"


def results_of(
    value: Callable[[Mapping[str, str], int], float],
    *,
    factors: Mapping[str, Any] = FACTORS,
    also: Callable[[dict[str, Any], Mapping[str, str], int], Mapping[str, Scored] | None] | None = None,
) -> frames.Results:
    """Records in memory whose one metric, `acc`, is `value(levels, seed)`; `also` adds facts and samples."""
    found = []
    for combination in itertools.product(*factors.values()):
        levels = dict(zip(factors, combination, strict=True))
        for seed in SEEDS:
            record = simulate.record_of(
                name="demo", factors=factors, levels=levels, seed=seed, seeds=list(SEEDS)
            )
            record["metrics"].append(simulate.metric("lm_eval", "t", "acc", value(levels, seed)))
            samples = also(record, levels, seed) if also else None
            found.append(Record(data=record, embedded=samples or {}))
    return arrange.arrange(found)


def noise(levels: Mapping[str, str], seed: int) -> float:
    """A fixed small number for each cell."""
    return float(np.random.default_rng([seed, *map(ord, "".join(levels.values()))]).normal(0, 0.01))


@pytest.fixture(scope="module")
def additive() -> frames.Results:
    a, b = {"a0": 0.0, "a1": 0.3}, {"b0": 0.0, "b1": -0.2, "b2": 0.0}
    return results_of(lambda v, seed: 0.1 * seed + a[v["a"]] + b[v["b"]] + noise(v, seed))


def test_marginal_effects_are_those_put_in_and_their_intervals_cover_them(additive: frames.Results) -> None:
    effects = {(e.factor, e.level): e.comparison for e in views.marginal_effects(Decisions(additive), METRIC)}
    assert list(effects) == [("a", "a1"), ("b", "b1"), ("b", "b2")]
    for place, truth in {("a", "a1"): 0.3, ("b", "b1"): -0.2, ("b", "b2"): 0.0}.items():
        found = effects[place]
        assert found.difference == pytest.approx(truth, abs=0.03)
        assert found.low is not None
        assert found.high is not None
        assert found.low < truth < found.high
        assert found.num_seeds == 4


def test_effects_that_add_up_do_not_interact_and_others_do(additive: frames.Results) -> None:
    for effect in views.interactions(Decisions(additive), METRIC):
        c = effect.comparison
        assert c.low is not None
        assert c.high is not None
        assert c.low < 0 < c.high
    joint = results_of(lambda v, s: 0.5 * (v["a"] == "a1" and v["b"] == "b2") + noise(v, s))
    found = {(e.level, e.given): e.comparison for e in views.interactions(Decisions(joint), METRIC)}
    assert list(found) == [("a1", "b = b1"), ("a1", "b = b2")]
    assert found["a1", "b = b2"].difference == pytest.approx(0.5, abs=0.05)
    assert found["a1", "b = b2"].p is not None
    assert found["a1", "b = b2"].p < 0.01


def test_the_front_is_what_nobody_beats_in_both() -> None:
    rng = np.random.default_rng(1)
    cost, quality = rng.integers(0, 5, 12), rng.integers(0, 5, 12)

    def also(record: dict[str, Any], levels: Mapping[str, str], seed: int) -> None:
        i = int(levels["x"])
        record["metrics"].append(
            simulate.metric("efficiency", "e", "memory", float(cost[i]), higher_is_better=False)
        )

    results = results_of(
        lambda v, s: float(quality[int(v["x"])]), factors={"x": [str(i) for i in range(12)]}, also=also
    )
    points = views.pareto(results, cost="efficiency.e.memory", quality="lm_eval.t.acc")
    for i, point in enumerate(points):
        dominated = any(
            (cost[j] < cost[i] and quality[j] >= quality[i])
            or (cost[j] <= cost[i] and quality[j] > quality[i])
            for j in range(12)
        )
        assert point.on_front is not dominated, point
    assert any(point.on_front for point in points)


def curve_facts(record: dict[str, Any], levels: Mapping[str, str], seed: int) -> None:
    """A stage that a1 ran twice as long; the other factor shares its runs."""
    steps = 20 if levels["a"] == "a1" else 10
    points: list[list[Any]] = [[s, 5.0 - 0.1 * s + 0.01 * seed] for s in range(steps + 1)]
    points[3][1] = None
    points[4][1] = math.nan
    record["facts"]["instruct"] = {
        "steps": steps, "tokens": steps * 100, "flops": None, "seconds": steps * 2.0, "loss_curve": points,
    }  # fmt: skip
    key = f"{levels['a']}-{seed}"
    record["stages"] = [{"stage": "instruct", "key": key}]


def test_curves_stand_at_equal_tokens_and_time_and_shared_runs_are_drawn_once() -> None:
    results = results_of(lambda v, s: 0.0, also=curve_facts)
    for against, scale in (("steps", 1), ("tokens", 100), ("seconds", 2)):
        curves = views.loss_curves(results, "instruct", against=against)
        assert [curve.levels for curve in curves] == [("a = a0",), ("a = a1",)]
        assert [curve.x[-1] for curve in curves] == [10 * scale, 20 * scale]
        assert len(curves[0].x) == 9, "points without a finite loss are left out"
        assert curves[0].y[0] == pytest.approx(5.015)
        assert (curves[0].low[0], curves[0].high[0]) == pytest.approx((5.0, 5.03))
    assert views.loss_curves(results, "instruct", against="flops") == []
    assert views.loss_curves(results, "reward") == []


def kept(rows: list[dict[str, Any]]) -> Scored:
    return Scored(pa.Table.from_pandas(pd.DataFrame(rows), preserve_index=False))


def long_context(record: dict[str, Any], levels: Mapping[str, str], seed: int) -> dict[str, Scored]:
    """Samples as a long-context evaluator leaves them, and those of generated texts."""
    shift = 0.1 if levels["a"] == "a1" else 0.0
    rows: list[dict[str, Any]] = []
    for doc in "uvw":
        rows += [
            {"doc_hash": doc, "length": n, "loss": 4 - shift - n / 1000 + 0.01 * seed} for n in (64, 128)
        ]
        rows += [{"doc_hash": doc, "position": p, "loss": 5 - shift - p / 100} for p in (0, 32, 64)]
    keys = [{"doc_hash": f"{n}{d}", "length": n, "acc": float(n < 100)} for n in (64, 128) for d in "xyz"]
    texts = [{"doc_hash": d, "length": i, "distinct_2": 0.5} for i, d in enumerate("xyz")]
    for task, metric in (("loss", "loss.length=64"), ("passkey", "acc")):
        record["metrics"].append(simulate.metric("long_context", task, metric, 0.5))
    for metric in ("distinct_2", "length"):
        record["metrics"].append(simulate.metric("generation", "texts", metric, 0.5))
    return {
        "long_context.loss": kept(rows),
        "long_context.passkey": kept(keys),
        "generation.texts": kept(texts),
    }


def test_loss_by_position_and_quality_by_length_are_means_of_their_items() -> None:
    results = results_of(lambda v, s: 0.0, also=long_context)
    curves = views.by_column(results, "long_context.loss", "position", "loss")
    assert len(curves) == 6
    assert list(curves[0].x) == [0, 32, 64]
    assert list(curves[0].y) == pytest.approx([5.0, 4.68, 4.36])
    by_length = views.by_column(results, "long_context.loss", "length", "loss")
    assert list(by_length[0].x) == [64, 128]
    assert (by_length[0].low[0], by_length[0].high[0]) == pytest.approx((3.936, 3.966))
    assert views.by_column(results, "long_context.passkey", "position", "acc") == []


def test_every_view_that_the_records_allow_becomes_a_figure() -> None:
    def also(record: dict[str, Any], levels: Mapping[str, str], seed: int) -> dict[str, Scored]:
        curve_facts(record, levels, seed)
        record["facts"]["instruct"]["trainable_parameters"] = 10 if levels["a"] == "a1" else 1000
        return long_context(record, levels, seed)

    results = results_of(lambda v, s: 0.1 * s + noise(v, s) * 3, also=also)
    made = figures.figures(tabulate.build(results, Layout(metrics=())), results)
    assert [figure.name for figure in made] == [
        "marginal_effects",
        "interactions",
        "pareto",
        "loss_instruct",
        "by_position_loss",
        "by_length_loss",
        "by_length_passkey",
    ]
    assert "Loss by position, loss." in [figure.title for figure in made]


def test_average_ranks_follow_friedman_and_nemenyi() -> None:
    """Ranks and p as scipy has them; the critical value of four methods is Demsar's table 5(a): 2.569."""
    from scipy.stats import friedmanchisquare, rankdata

    scores_BK = np.round(np.random.default_rng(5).normal([0, 0.4, 0.1, 0.5], 0.5, (14, 4)), 1)
    names = ["w", "x", "y", "z"]
    found = []
    for i, level in enumerate(names):
        record = simulate.record_of(name="demo", factors={"x": names}, levels={"x": level}, seed=0, seeds=[0])
        record["metrics"] = [
            simulate.metric("lm_eval", f"t{j}", "acc", float(s)) for j, s in enumerate(scores_BK[:, i])
        ]
        found.append(Record(data=record))
    results = arrange.arrange(found)
    ranks = views.average_ranks(results, [f"lm_eval.t{j}.acc" for j in range(14)])
    assert ranks is not None
    assert ranks.names == names
    assert ranks.ranks == pytest.approx(list(rankdata(-scores_BK, axis=1).mean(axis=0)))
    assert ranks.p == pytest.approx(float(friedmanchisquare(*scores_BK.T).pvalue))
    assert ranks.critical_difference == pytest.approx(2.569 * (4 * 5 / (6 * 14)) ** 0.5, abs=1e-3)
    pairs = itertools.combinations(sorted(ranks.ranks), 2)
    alike = {(a, b) for a, b in pairs if b - a < ranks.critical_difference}
    bars = views.cliques(ranks)
    assert set(bars) <= alike
    assert all(any(start <= a and b <= end for start, end in bars) for a, b in alike)


def ranked(values_KTS: np.ndarray, metrics: list[str], *, diverged: tuple[int, int] | None = None) -> Any:
    """Ranks of methods by tasks and seeds."""
    names = [f"m{i}" for i in range(len(values_KTS))]
    found = []
    for i, level in enumerate(names):
        for seed in range(values_KTS.shape[2]):
            record = simulate.record_of(
                name="demo", factors={"x": names}, levels={"x": level}, seed=seed, seeds=[0, 1]
            )
            record["metrics"] = [
                simulate.metric("lm_eval", *name.split("."), float(v))
                for name, v in zip(metrics, values_KTS[i, :, seed], strict=True)
            ]
            if (i, seed) == diverged:
                record["outcome"]["status"], record["metrics"] = "diverged", []
            found.append(Record(data=record))
    return views.average_ranks(arrange.arrange(found), [f"lm_eval.{name}" for name in metrics])


def test_a_block_is_a_task_seeds_are_averaged_and_repeated_metrics_count_once() -> None:
    rng = np.random.default_rng(2)
    values_KTS = rng.normal(size=(4, 6, 2))
    ranks = ranked(values_KTS, [f"t{j}.acc" for j in range(6)])
    assert ranks.blocks == 6
    twice = np.concatenate([values_KTS, values_KTS], axis=1)
    names = [f"t{j}.{metric}" for metric in ("acc", "acc_norm") for j in range(6)]
    again = ranked(twice, names)
    assert (again.blocks, again.p) == (6, ranks.p)
    assert ranked(rng.normal(size=(4, 2, 5)), ["t0.acc", "t0.exact_match"]) is None, "one task, five seeds"


def test_a_configuration_that_diverged_at_a_seed_stays_and_ranks_last() -> None:
    values_KTS = np.random.default_rng(3).normal(size=(3, 5, 2))
    values_KTS[1] += 5
    ranks = ranked(values_KTS, [f"t{j}.acc" for j in range(5)], diverged=(1, 0))
    assert ranks.names == ["m0", "m1", "m2"]
    assert ranks.ranks[1] == 3


def test_too_few_blocks_have_no_ranks(additive: frames.Results) -> None:
    assert views.average_ranks(additive, ["lm_eval.t.acc"]) is None
