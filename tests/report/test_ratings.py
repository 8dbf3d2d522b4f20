"""Bradley-Terry ratings against the closed form and planted strengths."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import simulate

from harness.report import arrange, making, ratings, records
from harness.report.ratings import Duels


def test_two_players_have_the_log_odds_of_their_score() -> None:
    found = ratings.bradley_terry([Duels(first="a", second="b", score=299.5, n=399)], anchor="b")
    assert found["a"][0] == pytest.approx(400 * math.log10(300 / 100), rel=1e-6)
    assert found["b"] == (0.0, 0.0)


def test_planted_strengths_lie_in_their_intervals() -> None:
    rng = np.random.default_rng(0)
    strengths = {"a": 0.0, "b": 100.0, "c": 250.0, "d": -60.0}
    inside = 0
    for _ in range(40):
        duels = []
        for x, y in itertools.combinations(strengths, 2):
            chance = 1 / (1 + 10 ** ((strengths[y] - strengths[x]) / 400))
            duels.append(Duels(first=x, second=y, score=float(rng.binomial(200, chance)), n=200))
        found = ratings.bradley_terry(duels, anchor="a")
        inside += sum(abs(found[k][0] - strengths[k]) <= 1.96 * found[k][1] for k in "bcd")
    assert inside / 120 >= 0.9


def by_iteration(duels: list[Duels], anchor: str) -> dict[str, float]:
    """Zermelo's iteration (1929), which needs no library: strength = points / expected meetings."""
    names = {name for d in duels for name in (d.first, d.second)}
    strength = dict.fromkeys(names, 1.0)
    for _ in range(3000):
        strength = {
            name: sum(
                d.score + 0.5 if d.first == name else d.n - d.score + 0.5
                for d in duels
                if name in (d.first, d.second)
            )
            / sum(
                (d.n + 1) / (strength[d.first] + strength[d.second])
                for d in duels
                if name in (d.first, d.second)
            )
            for name in names
        }
    return {name: 400 * math.log10(s / strength[anchor]) for name, s in strength.items()}


@pytest.mark.filterwarnings("ignore::statsmodels.tools.sm_exceptions.PerfectSeparationWarning")
@pytest.mark.parametrize(
    "scores",
    [(7.5, 10.0, 3.0), (10.0, 10.0, 5.0), (5.0, 5.0, 5.0), (0.0, 0.0, 0.0)],
    ids=["ties", "one wins all", "all alike", "one loses all"],
)
def test_ratings_are_those_of_zermelos_iteration(scores: tuple[float, float, float]) -> None:
    pairs = (("a", "b"), ("a", "c"), ("b", "c"))
    duels = [Duels(first=x, second=y, score=s, n=10) for (x, y), s in zip(pairs, scores, strict=True)]
    found = ratings.bradley_terry(duels, anchor="b")
    expected = by_iteration(duels, "b")
    assert {name: elo for name, (elo, _) in found.items()} == pytest.approx(expected, abs=1e-6)


def test_who_never_met_the_anchors_circle_has_no_rating() -> None:
    duels = [Duels(first=x, second=y, score=7, n=10) for x, y in (("a", "b"), ("c", "d"), ("d", "e"))]
    found = ratings.bradley_terry(duels, anchor="a")
    assert found.keys() == {"a", "b"}
    assert found["b"] == pytest.approx(ratings.bradley_terry(duels[:1], anchor="a")["b"])
    assert ratings.bradley_terry(duels, anchor="x") == {"x": (0.0, 0.0)}


def test_ratings_against_different_opponents_say_so() -> None:
    given = ratings.rating("a", [Duels(first="a", second=ratings.REFERENCE, score=7, n=10)])
    same, other = (replace(given, name=name, against=name) for name in ("b", "c"))
    heads, rows, (note,) = ratings.as_text([same, other]) or ([], [], [""])
    assert heads[-1] == "against"
    assert [row[-1] for row in rows] == ["b", "c"]
    assert "only configurations with the same one can be compared" in note
    heads, _, _ = ratings.as_text([given, replace(given, name="d")]) or ([], [], [])
    assert heads[-1] == "over"


def test_a_shut_out_has_a_finite_rating() -> None:
    found = ratings.bradley_terry([Duels(first="a", second="b", score=50, n=50)], anchor="b")
    assert 0 < found["a"][0] < 2000


def test_configurations_are_rated_over_seeds(demo_store: Path) -> None:
    results = arrange.arrange(records.read(demo_store, "demo"))
    found = ratings.ratings(results, "win_rate.win_rate")
    assert found == []  # the simulator keeps no samples of its win rate
    assert len(ratings.ratings(results, "lm_eval.recall", column="acc")) == 12


def test_a_report_rates_what_was_judged_as_by_hand(tmp_path: Path) -> None:
    """Three seeds of 40 duels: the mean of 400 log10((won + 1/2) / (lost + 1/2))."""
    root = simulate.experiment(tmp_path / "s", factors={"peft": ["full", "lora"]}, items=40)
    won: dict[str, list[float]] = {}
    for record in records.read(root, "demo"):
        assert record.folder is not None
        rng = np.random.default_rng([record.seed, len(record.levels["peft"]), 3])
        wins = rng.choice([0.0, 0.5, 1.0], size=40)
        frame = pd.DataFrame({"doc_hash": [f"{i}" for i in range(40)], "win_rate": wins})
        frame.to_parquet(record.folder / "samples" / "win_rate.win_rate.parquet", index=False)
        won.setdefault(record.levels["peft"], []).append(float(wins.sum()))
    text = (making.report("demo", store=root, out=tmp_path / "out", quiet=True) / "README.md").read_text()
    section = text[text.index("## Ratings from duels") :]
    for level, points in won.items():
        by_hand = np.mean([400 * math.log10((p + 0.5) / (40 - p + 0.5)) for p in points])
        assert f"| {level} | {by_hand:+.0f} |" in section
