"""One answer to one question: marks, intervals, claims and colours of a report never contradict."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import simulate

from harness.errors import ConfigError
from harness.report import arrange, claims, frames, tabulate, views
from harness.report.decisions import Decisions
from harness.report.latex import latex
from harness.report.layout import parse
from harness.report.record import Record
from harness.report.scored import Scored
from harness.report.table import sign

Value = Callable[[Mapping[str, str], int], float]


def results_of(value: Value, *, factors: Mapping[str, Any], seeds: int = 3, **extra: Any) -> frames.Results:
    """Records in memory whose one metric, `acc`, is `value(levels, seed)`."""
    found = []
    for combination in itertools.product(*factors.values()):
        levels = dict(zip(factors, combination, strict=True))
        for seed in range(seeds):
            record = simulate.record_of(
                name="demo", factors=factors, levels=levels, seed=seed, seeds=list(range(seeds))
            )
            record["metrics"].append(simulate.metric("lm_eval", "t", "acc", value(levels, seed), **extra))
            found.append(Record(data=record))
    return arrange.arrange(found)


def test_seeds_that_all_agree_are_evidence() -> None:
    """0, 0, 0 against 1, 1, 1, of 200 items: no seed of one reaches any seed of the other."""
    factors = {"x": ["a", "b", "c"]}
    results = results_of(lambda v, s: {"a": 0.0, "b": 1.0, "c": 1.0}[v["x"]], factors=factors, n=200)
    found = claims.check(results, "acc[x=b] > acc[x=a]")
    assert found.verdict == "confirmed"
    assert claims.check(results, "acc[x=b] > acc[x=c]").verdict == "undecided"
    assert claims.check(results, "acc[x=b] = acc[x=c] +- 0.02").verdict == "confirmed"


def test_ten_times_the_same_gain_is_a_gain_and_one_answer_of_two_hundred_is_not() -> None:
    rng = np.random.default_rng(1)
    base = rng.normal(0.5, 0.1, 10)
    factors = {"x": ["a", "b"]}
    same_gain = results_of(lambda v, s: float(base[s]) + 0.1 * (v["x"] == "b"), factors=factors, seeds=10)
    assert claims.check(same_gain, "acc[x=b] > acc[x=a]").verdict == "confirmed"
    step = results_of(lambda v, s: 0.5 + 0.005 * (v["x"] == "b"), factors=factors, n=200)
    assert claims.check(step, "acc[x=b] > acc[x=a]").verdict == "undecided"


def test_one_answer_of_two_hundred_is_no_gain_between_two_tasks_either() -> None:
    factors = {"x": ["a", "b"]}
    results = results_of(lambda v, s: 0.5, factors=factors, n=200)
    for record in results.all_records():
        other = {"a": 0.495, "b": 0.4}[record.levels["x"]]
        record.data["metrics"].append(simulate.metric("lm_eval", "u", "acc", other, n=200))
    again = arrange.arrange(results.all_records())
    decisions = Decisions(again)
    texts = [f"t.acc[x={level}] > u.acc[x={level}]" for level in ("a", "b")]
    found = claims.answer_all(decisions, claims.ask_all(decisions, texts))
    assert [c.verdict for c in found] == ["undecided", "confirmed"]


def test_two_metrics_that_no_seed_moves_are_compared_as_they_are() -> None:
    """Tokens a word of two languages by one tokenizer: an interval over seeds would have no width."""
    results = results_of(lambda v, s: 3.7, factors={"x": ["a", "b"]}, n=64, unit="tokens/word")
    for record in results.all_records():
        metric = simulate.metric("lm_eval", "u", "acc", 1.3, n=64, unit="tokens/word")
        record.data["metrics"].append(metric)
    found = claims.check(arrange.arrange(results.all_records()), "t.acc[x=a] > u.acc[x=a]")
    assert (found.verdict, found.reason) == ("confirmed", "the same in all 3 seeds")
    assert found.number == "+2.4 tokens/word"


def test_seeds_that_are_one_run_are_no_replicates() -> None:
    factors = {"x": ["a", "b"]}
    results = results_of(lambda v, s: 1.0 * (v["x"] == "b"), factors=factors, n=50)
    for record in results.all_records():
        for stage in record.data["stages"]:
            stage["key"] = record.levels["x"]
    found = claims.check(results, "acc[x=b] > acc[x=a]")
    assert found.verdict == "undecided"
    assert "rest on the same run" in found.reason


def test_a_size_that_no_seed_moves_is_compared_as_it_is() -> None:
    results = results_of(lambda v, s: {"a": 3.0, "b": 2.0}[v["x"]], factors={"x": ["a", "b"]})
    found = claims.check(results, "acc[x=b] < acc[x=a]")
    assert (found.verdict, found.reason) == ("confirmed", "the same in all 3 seeds")


def test_a_difference_of_differences_is_found_and_its_absence_is_not_claimed() -> None:
    factors = {"tuning": ["full", "lora"], "bits": ["16 bit", "4 bit"]}

    def value(cost: float) -> Value:
        rng = np.random.default_rng(3)
        return lambda v, s: (
            0.8 - 0.1 * (v["tuning"] == "lora") - cost * (v == {"tuning": "lora", "bits": "4 bit"})
            + 0.05 * s + float(rng.normal(0, 0.005))
        )  # fmt: skip

    gap = "(acc[tuning=lora] - acc[tuning=full])"
    says = f"{gap}[bits=4 bit] < {gap}[bits=16 bit]"
    for cost, verdict in ((0.2, "confirmed"), (0.0, "undecided")):
        found = claims.check(results_of(value(cost), factors=factors, seeds=5), says)
        assert found.verdict == verdict, found
        assert found.difference == pytest.approx(-cost, abs=0.02)


def test_what_diverged_at_two_of_five_seeds_is_not_better_and_the_report_says_how_often() -> None:
    rng = np.random.default_rng(4)
    factors = {"x": ["a", "b", "c"]}
    shift = {"a": 0.0, "b": 1.0, "c": -1.0}
    results = results_of(lambda v, s: shift[v["x"]] + float(rng.normal(0, 0.02)), factors=factors, seeds=5)
    for levels, by_seed in results.records.items():
        for seed in (1, 3) if levels != ("a",) else ():
            by_seed[seed].data["outcome"].update(status="diverged")
    found = claims.check(results, "acc[x=b] > acc[x=a]")
    assert found.verdict == "undecided"
    assert "the left side diverged at 2 of 5 seeds, the right at 0" in found.reason
    assert claims.check(results, "acc[x=c] < acc[x=a]").verdict == "confirmed"
    built = tabulate.build(results, parse({"rows": ["x"]}, where="x"))
    assert [c.verdict for c in built.all_cells()] == ["baseline", "undecided", "worse"]
    assert any("diverged at 2 of 5 seeds, the baseline at 0" in note for note in built.footnotes)


def lost(results: frames.Results, level: str, seeds: tuple[int, ...]) -> frames.Results:
    """Results in which a level diverged at some seeds."""
    for levels, by_seed in results.records.items():
        for seed in seeds if level in levels else ():
            by_seed[seed].data["outcome"].update(status="diverged")
    return results


@pytest.mark.parametrize(
    ("says", "when_a_is_lost", "when_b_is_lost"),
    [
        # a and b are equal but for 0.02, which lies within both margins.
        ("acc[x=a] > acc[x=b] - 0.1", "undecided", "confirmed"),
        ("acc[x=a] < acc[x=b] + 0.1", "confirmed", "undecided"),
        ("acc[x=a] = acc[x=b] +- 0.1", "undecided", "undecided"),
        ("acc[x=a] = acc[x=c]", "undecided", "refuted"),
    ],
)
def test_no_margin_and_no_tolerance_hides_that_one_side_diverged(
    says: str, when_a_is_lost: str, when_b_is_lost: str
) -> None:
    def results() -> frames.Results:
        rng = np.random.default_rng(4)
        shift = {"a": 0.02, "b": 0.0, "c": -5.0}
        factors = {"x": ["a", "b", "c"]}
        return results_of(lambda v, s: shift[v["x"]] + float(rng.normal(0, 0.002)), factors=factors, seeds=6)

    assert claims.check(lost(results(), "a", (0, 1)), says).verdict == when_a_is_lost
    assert claims.check(lost(results(), "b", (0, 1)), says).verdict == when_b_is_lost
    # Without a direction, what diverged may have been anything.
    vague = lost(results(), "a", (0, 1))
    vague.metrics["lm_eval.t.acc"] = replace(vague.metrics["lm_eval.t.acc"], higher_is_better=None)
    assert claims.check(vague, says).verdict == "undecided"


def test_divergence_is_counted_by_runs_where_a_side_averages_configurations() -> None:
    """b diverged in both its combinations at two seeds, a in one: the same seeds, twice the runs."""
    rng = np.random.default_rng(6)
    factors = {"x": ["a", "b"], "y": ["c", "d"]}
    results = results_of(lambda v, s: (v["x"] == "b") + float(rng.normal(0, 0.01)), factors=factors, seeds=6)
    for levels in (("a", "c"), ("b", "c"), ("b", "d")):
        for seed in (0, 1):
            results.records[levels][seed].data["outcome"].update(status="diverged")
    found = claims.check(results, "acc[x=b] > acc[x=a]")
    assert found.verdict == "undecided"
    assert "the left side diverged in 4 of 12 runs, the right in 2" in found.reason
    assert claims.check(results, "acc[x=a] < acc[x=b]").verdict == "undecided"


def test_a_layouts_direction_holds_in_table_claim_and_front() -> None:
    rng = np.random.default_rng(7)
    results = results_of(lambda v, s: (v["x"] == "b") + float(rng.normal(0, 0.01)), factors={"x": ["a", "b"]})
    columns = [{"metric": "acc", "better": "lower"}]
    built = tabulate.build(results, parse({"rows": ["x"], "metrics": columns}, where="x"))
    assert [cell.verdict for cell in built.all_cells()] == ["baseline", "worse"]
    front = views.pareto(results, cost="pretrain.steps", quality="lm_eval.t.acc")
    assert [point.on_front for point in front] == [True, False]
    both = {"rows": ["x"], "metrics": [*columns, {"metric": "acc", "better": "higher"}]}
    with pytest.raises(ConfigError, match=r"'lm_eval\.t\.acc' is better lower and higher"):
        tabulate.build(results, parse(both, where="x"))


def test_a_metric_without_a_direction_is_said_to_differ() -> None:
    rng = np.random.default_rng(8)
    results = results_of(
        lambda v, s: (v["x"] == "b") + float(rng.normal(0, 0.01)),
        factors={"x": ["a", "b", "c"]},
        higher_is_better=None,
    )
    built = tabulate.build(results, parse({"rows": ["x"], "primary": ["acc"]}, where="x"))
    assert [cell.verdict for cell in built.all_cells()] == ["baseline", "differs", "tie"]
    assert [sign(cell) for cell in built.all_cells()] == ["", "≠", "≈"]
    assert any(line.startswith("≠ ") for line in built.caption)
    assert r"$\neq$" in latex(built)


def test_one_shared_pretraining_limits_what_is_said() -> None:
    rng = np.random.default_rng(5)
    results = results_of(lambda v, s: (v["x"] == "b") + float(rng.normal(0, 0.02)), factors={"x": ["a", "b"]})
    found = claims.check(results, "acc[x=b] > acc[x=a]")
    assert found.verdict == "confirmed"
    assert found.reason.endswith("given this pretrain checkpoint")
    caption = tabulate.build(results, parse({"rows": ["x"]}, where="x")).caption
    assert any("holds given this checkpoint" in line for line in caption)
    for record in results.all_records():
        record.data["stages"][1]["key"] = f"pretrain {record.seed}"
    again = claims.check(results, "acc[x=b] > acc[x=a]")
    assert "checkpoint" not in again.reason


def test_what_the_arithmetic_of_floats_leaves_is_no_spread() -> None:
    """Bytes that each seed moves by the same everywhere: rounding decides nothing."""
    shift = {"a": 24_399_689.0, "b": 17_436_500.0, "c": 29_454_300.0}
    results = results_of(lambda v, s: shift[v["x"]] + 1e8 / (3 + s) ** 0.5, factors={"x": ["a", "b", "c"]})
    decisions = Decisions(results)
    contrast = decisions.contrast([(1.0, {"x": "b"}), (-1.0, {"x": "a"})], "lm_eval.t.acc")
    assert contrast is not None
    decisions.declare("cells", [contrast])
    found = decisions.compare(contrast)
    assert (found.test, found.detectable) == ("exact", None)


def test_a_claim_about_trained_methods_says_where_nobody_tuned_their_rates() -> None:
    rng = np.random.default_rng(5)
    results = results_of(lambda v, s: (v["x"] == "b") + float(rng.normal(0, 0.02)), factors={"x": ["a", "b"]})
    says = "acc[x=b] > acc[x=a]"
    for record in results.all_records():
        record.data["facts"]["instruct"] = {"steps": 80}
    assert claims.check(results, says).said == "confirmed at learning rates set by hand"
    assert "So it is here, at learning rates set by hand: " in claims.sentence(claims.check(results, says))
    for record in results.all_records():
        (instruct,) = (stage for stage in record.data["stages"] if stage["stage"] == "instruct")
        instruct["key"] = f"one run of seed {record.seed}"
    assert claims.check(results, says).said == "confirmed"
    for record in results.all_records():
        record.data["stages"][2]["key"] = record.cell
        record.data["tune"] = {"chosen": {"instruct.learning_rate": 1e-3}, "edge": []}
    assert claims.check(results, says).said == "confirmed"
    results.all_records()[0].data["tune"]["edge"].append("instruct.learning_rate=0.001 is the lowest of 3")
    assert claims.check(results, says).said == "confirmed at a value on the edge of what was tried"


def test_exact_numbers_that_differ_are_printed_apart() -> None:
    sizes = {"a": 0.628174, "b": 0.628235, "c": 12.5}
    results = results_of(lambda v, s: sizes[v["x"]], factors={"x": list(sizes)})
    built = tabulate.build(results, parse({"rows": ["x"]}, where="x"))
    assert [cell.value for cell in built.all_cells()] == ["0.62817", "0.62823", "12.50000"]


def one_seed_by_length(lengths: Sequence[int] = (64, 4096), documents: int = 14) -> frames.Results:
    """Two fixed models; the items of each length stand below each other, in samples of one task."""
    rng = np.random.default_rng(3)
    of_document = rng.normal(2.0, 0.5, documents)
    factors = {"x": ["whole", "window"]}
    found = []
    for x in factors["x"]:
        record = simulate.record_of(name="demo", factors=factors, levels={"x": x}, seed=0, seeds=[0])
        rows = [
            {"doc_hash": f"d{i}", "length": n, "loss": base + (n > 64) * (1.0 + 0.1 * i) * (x == "whole")}
            for n in lengths
            for i, base in enumerate(of_document)
        ]
        for n in lengths:
            losses = [row["loss"] for row in rows if row["length"] == n]
            name, n_items = f"loss.length={n}", len(losses)
            record["metrics"].append(
                simulate.metric("long_context", "loss", name, float(np.mean(losses)), n=n_items)
            )
        columns = {name: [row[name] for row in rows] for name in ("doc_hash", "length", "loss")}
        found.append(Record(data=record, embedded={"long_context.loss": Scored.of(columns)}))
    return arrange.arrange(found)


def test_groups_of_items_are_compared_over_their_documents() -> None:
    """One checkpoint: what is asked of a length, or between two lengths, is decided over documents."""
    results = one_seed_by_length()
    for claim, difference in (
        ('"loss.length=4096"[x=window] < "loss.length=4096"[x=whole]', -(1.0 + 0.1 * 6.5)),
        ('"loss.length=4096"[x=whole] > "loss.length=64"[x=whole]', 1.0 + 0.1 * 6.5),
        ('"loss.length=64"[x=window] = "loss.length=64"[x=whole] +- 0.01', 0.0),
    ):
        found = claims.check(results, claim)
        assert "these checkpoints say confirmed (document bootstrap, 14 documents)" in found.reason
        assert found.difference == pytest.approx(difference)


def test_lengths_over_other_documents_are_not_paired() -> None:
    results = one_seed_by_length()
    for record in results.all_records():
        table = record.embedded["long_context.loss"].frame()
        table.loc[table.length == 64, "doc_hash"] += " of another text"
        record.embedded["long_context.loss"] = Scored.of({c: list(table[c]) for c in table})
    found = claims.check(results, '"loss.length=4096"[x=whole] > "loss.length=64"[x=whole]')
    assert found.verdict == "undecided"
    assert "no items were kept" in found.reason


def test_no_claim_is_decided_on_the_speed_of_a_run_that_was_over_before_it_was_warm() -> None:
    rng = np.random.default_rng(9)
    results = results_of(lambda v, s: float(rng.normal()), factors={"x": ["a", "b"]})
    for record in results.all_records():
        speed = 1000.0 * (1 + (record.levels["x"] == "b")) + record.seed
        record.data["facts"]["instruct"] = {"steps": 80, "seconds": 30.0, "tokens_per_second": speed}
    says = "instruct.tokens_per_second[x=b] > instruct.tokens_per_second[x=a]"
    assert claims.check(arrange.arrange(results.all_records()), says).verdict == "confirmed"
    results.all_records()[0].data["facts"]["instruct"]["seconds"] = 0.5
    found = claims.check(arrange.arrange(results.all_records()), says)
    assert found.verdict == "undecided"
    assert "runs of 0.5 s are over before they are warm, 10 s are needed" in found.reason
