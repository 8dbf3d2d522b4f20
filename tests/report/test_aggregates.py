"""Aggregates over tasks against hand calculations, and where they stand in a report."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import simulate

from harness.report.aggregates import draws, improvement, iqm, profile, ranged, scores_of, win_rates
from harness.report.making import report, results_of
from harness.report.records import read


def test_the_interquartile_mean_cuts_a_quarter_at_each_end() -> None:
    scores_ST = np.array([[0.0, 0.2, 0.4, 0.9], [1.0, 0.3, 0.5, 0.6]])
    assert iqm(scores_ST[None]) == pytest.approx([(0.3 + 0.4 + 0.5 + 0.6) / 4])


def test_the_interquartile_mean_is_scipys_for_any_number_of_scores() -> None:
    from scipy.stats import trim_mean

    rng = np.random.default_rng(0)
    for runs, tasks in itertools.product(range(1, 7), range(1, 5)):
        scores_RST = rng.random((3, runs, tasks))
        expected = [trim_mean(scores_ST, 0.25, axis=None) for scores_ST in scores_RST]
        assert iqm(scores_RST) == pytest.approx(expected)


def test_improvement_is_the_mean_of_mann_whitney_probabilities() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    first_ST, second_ST = rng.integers(0, 6, (5, 3)) / 5, rng.integers(0, 6, (4, 3)) / 5
    by_task = [
        mannwhitneyu(first_ST[:, t], second_ST[:, t]).statistic / (len(first_ST) * len(second_ST))
        for t in range(3)
    ]
    (forth,), (back,) = (
        improvement(first_ST[None], second_ST[None]),
        improvement(second_ST[None], first_ST[None]),
    )
    assert forth == pytest.approx(np.mean(by_task))
    assert forth + back == pytest.approx(1)
    assert improvement(first_ST[None], first_ST[None]) == pytest.approx([0.5])


def test_win_rates_count_the_configurations_that_are_beaten() -> None:
    means_KT = np.array([[3.0, 1.0], [2.0, 1.0], [1.0, 5.0]])
    # task 1: 1, 1/2, 0; task 2: the tie of the first two counts half of one of two, the third beats both
    assert win_rates(means_KT) == pytest.approx([(1 + 0.25) / 2, (0.5 + 0.25) / 2, (0 + 1) / 2])


def test_a_profile_is_the_share_of_runs_above_each_threshold() -> None:
    scores_ST = np.array([[0.1, 0.5], [0.7, 0.9]])
    assert profile(scores_ST, np.array([0.0, 0.5, 0.8, 1.0])) == pytest.approx([1, 0.5, 0.25, 0])


def test_scores_are_high_where_good(tmp_path: Path) -> None:
    results = results_of(
        read(simulate.experiment(tmp_path, seeds=(0, 1), items=12, tasks=("recall",)), "demo")
    )
    tasks = ["perplexity.perplexity.bits_per_byte", "lm_eval.recall.acc"]
    levels = next(iter(results.records))
    bits, right = scores_of(results, levels, tasks)[1]
    assert bits == -results.value(levels, 1, tasks[0]) < 0 <= right == results.value(levels, 1, tasks[1])


def test_runs_are_resampled_within_their_task_and_tasks_apart() -> None:
    rows_RST = draws((4, 3), 0)
    assert rows_RST.shape[1:] == (4, 3)
    assert set(np.unique(rows_RST)) == set(range(4))
    assert (rows_RST[:, :, 0] != rows_RST[:, :, 1]).any()
    assert (rows_RST != draws((4, 3), 1)).any()


def test_intervals_cover_the_mean_and_one_run_has_none() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(60):
        found = ranged(lambda scores_RST: scores_RST.mean(axis=(1, 2)), rng.normal(0.5, 0.1, (10, 4)))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.5 <= found.high
    assert covered >= 50  # a percentile bootstrap of ten runs falls a little short of 95 %
    assert ranged(iqm, rng.random((1, 4))).low is None


def test_a_report_of_several_tasks_has_them_together(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path / "s", factors={"peft": ["full", "lora"]})
    folder = report("demo", store=root, out=tmp_path / "out", quiet=True)
    text = (folder / "README.md").read_text()
    section = text[text.index("## Over all tasks") :]
    assert "| full | " in section
    assert "mean win rate" in section
    assert "<h2>Over all tasks</h2>" in (folder / "index.html").read_text()


def test_one_task_has_no_section_of_its_own(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path / "s", factors={"peft": ["full", "lora"]})
    folder = report("demo", store=root, out=tmp_path / "out", table={"primary": ["recall.acc"]}, quiet=True)
    assert "Over all tasks" not in (folder / "README.md").read_text()
