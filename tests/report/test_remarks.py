"""Remarks on numbers at their bounds, levels and rates in words, and tolerances beside what they exclude."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulate

from harness.report import claims, levels, making, records
from harness.report.layout import Layout, parse
from harness.report.numbers import difference_text
from harness.report.tabulate import build
from harness.report.writers import differences_markdown

FACTORS: dict[str, Any] = {"peft": ["full", "lora"]}


def store(root: Path, change: Any, *, seeds: tuple[int, ...] = (0, 1, 2)) -> Path:
    """Simulated records, each changed by `change(record)` in place."""
    simulate.experiment(root, factors=FACTORS, seeds=seeds, items=40)
    for i in range(2 * len(seeds)):
        record: dict[str, Any] = {}

        def keep(metrics: Any, record: dict[str, Any] = record) -> Any:
            record["metrics"] = metrics
            return metrics

        simulate.edit(root, "demo", i, metrics=keep)
        change(record["metrics"])
        simulate.edit(root, "demo", i, metrics=record["metrics"])
    return root


def set_value(metric: str, value: float) -> Any:
    def change(metrics: list[dict[str, Any]]) -> None:
        for m in metrics:
            if m["metric"] == metric:
                m["value"] = value

    return change


@pytest.mark.parametrize(
    ("metric", "value", "said"),
    [
        ("win_rate", 1.0, "at the ceiling"),
        ("win_rate", 0.0, "at the floor"),
        ("bits_per_byte", 8.4, "worse than uniform over bytes (8 bits per byte)"),
    ],
)
def test_a_number_at_its_bound_says_so(tmp_path: Path, metric: str, value: float, said: str) -> None:
    root = store(tmp_path / "s", set_value(metric, value))
    table = build(making.results_of(records.read(root, "demo")), Layout())
    cells = [cell for cell in table.all_cells() if cell.metric.endswith(metric)]
    assert cells
    for cell in cells:
        assert any(said in table.footnotes[note] for note in cell.notes)


def test_chance_is_one_of_as_many_choices_as_were_asked(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path / "s", factors=FACTORS, items=200, tasks=("recall",))
    rng = np.random.default_rng(0)
    for i in range(6):
        simulate.edit(
            root,
            "demo",
            i,
            facts=lambda facts: facts | {"evaluate": {"lm_eval.recall": {"requests": 800}}},
            metrics=lambda metrics: [
                m | ({"value": 0.25 + rng.normal(0, 0.01)} if m["metric"] == "acc" else {}) for m in metrics
            ],
        )
    table = build(making.results_of(records.read(root, "demo")), Layout())
    cells = [cell for cell in table.all_cells() if cell.metric.endswith("recall.acc")]
    texts = {table.footnotes[note] for cell in cells for note in cell.notes}
    assert texts == {"not distinguishable from chance (1 of 4 choices)"}


def test_intervals_of_shares_and_of_their_differences_are_shares_and_differences(tmp_path: Path) -> None:
    root = simulate.experiment(
        tmp_path / "s", factors=FACTORS, items=40, effects={"peft.full": 4.0, "peft.lora": -4.0}, seed_sd=3.0
    )
    table = build(making.results_of(records.read(root, "demo")), Layout())
    shares = [c for c in table.all_cells() if c.metric.endswith((".acc", "win_rate")) and c.estimate]
    assert all(0 <= c.estimate.low <= c.estimate.mean <= c.estimate.high <= 1 for c in shares)  # type: ignore[union-attr, operator]
    compared = [c.comparison for c in shares if c.comparison]
    assert compared
    assert all(-1 <= c.low <= c.high <= 1 for c in compared if c.low is not None and c.high is not None)


def test_rates_that_no_search_chose_are_said_to_be_set_by_hand(tmp_path: Path) -> None:
    spec = {"peft": {"full": {"peft": "full"}, "lora": {"peft": "lora", "pretrain.learning_rate": 1e-2}}}
    root = simulate.experiment(tmp_path / "s", factors=spec)
    found = records.read(root, "demo")
    (note,) = levels.rate_notes(found)
    assert note.startswith("Set by hand, not tuned for each method: pretrain.learning_rate = ")
    assert "0.01 for lora" in note or "0.003 for full" in note
    for record in found:
        record.data["tune"] = {"chosen": {"pretrain.learning_rate": 0.01}}  # type: ignore[index]
    assert "pretrain" not in " ".join(levels.rate_notes(found))


def test_a_report_prints_what_a_level_sets_where_its_name_does_not_say_it(tmp_path: Path) -> None:
    spec = {"bits": {"8 bit": {"quantizer": "rtn", "quantizer.bits": 8}, "16 bit": {"quantizer": "none"}}}
    root = simulate.experiment(tmp_path / "s", factors=spec)
    folder = making.report("demo", store=root, out=tmp_path / "out", quiet=True)
    assert "| bits | 8 bit | quantizer = rtn, quantizer.bits = 8 |" in (folder / "README.md").read_text()
    assert levels.TITLE in (folder / "index.html").read_text()
    plain = simulate.experiment(tmp_path / "p", factors=FACTORS)
    results = making.results_of(records.read(plain, "demo"))
    assert levels.as_text(results, Layout()) is None


def test_a_tolerance_is_weighed_against_what_configurations_differ_by(demo_store: Path) -> None:
    results = making.results_of(records.read(demo_store, "demo"))
    means = [
        m.mean
        for v in results.records
        if (m := results.measured(dict(zip(results.factors, v, strict=True)), results.resolve("recall.acc")))
    ]
    span = max(means) - min(means)
    found = claims.check(results, "recall.acc[peft=full] = recall.acc[peft=lora] +- 0.5")
    assert f"the tolerance of 50 points is {100 * 0.5 / span:.3g} % of all" in found.reason
    assert "nothing here could refute it" in found.reason
    assert found.verdict == "undecided", "equality within more than any two configurations differ by"
    found = claims.check(results, f"recall.acc[peft=full] = recall.acc[peft=lora] +- {0.9 * span:.4f}")
    assert "little here could refute it" in found.reason
    assert found.verdict == "confirmed"


def test_a_tolerance_between_effects_is_weighed_against_them(demo_store: Path) -> None:
    """Ten times what 4 bits cost says nothing of whether preference tuning changes that."""
    results = making.results_of(records.read(demo_store, "demo"))
    metric = results.resolve("recall.acc")

    def cost(alignment: str) -> float:
        found = [
            results.measured({"alignment": alignment, "quantizer": bits}, metric)
            for bits in ("4 bit", "16 bit")
        ]
        assert found[0]
        assert found[1]
        return abs(found[0].mean - found[1].mean)

    says = " = ".join(
        f"(recall.acc[quantizer=4 bit] - recall.acc[quantizer=16 bit])[alignment={a}]"
        for a in ("dpo", "none")
    )
    larger = max(cost("dpo"), cost("none"))
    wide, narrow = (claims.check(results, f"{says} +- {share * larger:.6f}").reason for share in (0.6, 0.2))
    assert "is 60 % of the larger effect that it compares, so that little here could refute it" in wide
    assert "is 20 % of the larger effect that it compares" in narrow
    assert "little here" not in narrow


def test_a_claim_has_the_unit_and_scale_of_its_column(demo_store: Path) -> None:
    results = making.results_of(records.read(demo_store, "demo"))
    layout = parse({"metrics": [{"metric": "recall.acc", "scale": 100, "unit": "%"}]}, where="x")
    table = build(results, layout)
    says = "recall.acc[peft=full] = recall.acc[peft=lora] +- 0.02"
    shown = claims.check(results, says, table)
    assert shown.difference is not None
    assert float(shown.number.split()[0]) == pytest.approx(100 * shown.difference, abs=0.05)
    assert shown.number.endswith(" points")
    assert "the tolerance of 2 points is" in shown.reason
    bare = build(results, parse({"metrics": ["recall.acc"]}, where="x"))
    assert "the tolerance of 0.02 is" in claims.check(results, says, bare).reason
    assert "the tolerance of 2 points is" in claims.check(results, says).reason, "no column prints it"
    memory = claims.check(results, "memory[quantizer=4 bit] < memory[quantizer=16 bit]")
    assert memory.number.endswith(" MiB")


def test_divergence_that_costs_a_combination_its_place_counts(tmp_path: Path) -> None:
    """One of lora's two combinations diverges at every seed but one: it leaves, and the claim is no win."""
    spec = {"peft": ["full", "lora"], "bits": ["8", "16"]}
    root = simulate.experiment(tmp_path / "s", factors=spec, effects={"peft.lora": 3.0}, seed_sd=0.01)
    says = "recall.acc[peft=lora] > recall.acc[peft=full]"
    assert claims.check(making.results_of(records.read(root, "demo")), says).verdict == "confirmed"
    wanted = {"peft": "lora", "bits": "8"}
    for i, path in enumerate(sorted((root / "records" / "demo").glob("*/record.json"))):
        record = records.read(root, "demo", cells=[path.parent.name])[0]
        if record.levels == wanted and record.seed != 0:
            simulate.edit(
                root, "demo", i, outcome={"status": "diverged", "stage": "pretrain", "step": 9}, metrics=[]
            )
    found = claims.check(making.results_of(records.read(root, "demo")), says)
    assert found.verdict == "undecided"
    assert "the left side diverged in 2 of 6 runs, the right in 0" in found.reason


@pytest.mark.parametrize(
    ("numbers", "text"),
    [
        ((0.0000327, -0.00186, 0.00193), "0.0000 (-0.0019 to 0.0019)"),
        ((-61.9, -85.2, -38.7), "-62 (-85 to -39)"),
        ((-2.63, -2.63, -2.63), "-2.63"),
        ((0.0, 0.0, 0.0), "0"),
        ((-919_040.0, -919_040.0, -919_040.0), "-919,040"),
        ((-1318.0, -3068.0, 432.0), "-1,318 (-3,068 to 432)"),
        ((8.18e29, -3.5e30, 5.2e30), "+0.8e+30 (-3.5e+30 to 5.2e+30)"),
        ((4e-13, -1e-12, 2e-12), "+0.4e-12 (-1.0e-12 to 2.0e-12)"),
        ((17179869184.0, 17179869184.0, 17179869184.0), "+17,179,869,184"),
        ((2e29, 2e29, 2e29), "+2e+29"),
    ],
)
def test_a_difference_has_the_digits_that_its_interval_carries(
    numbers: tuple[float, float, float], text: str
) -> None:
    assert difference_text(*numbers) == text


@pytest.mark.parametrize(
    ("ends", "limits", "text"),
    [
        ((0.00046, 0.196), (), "+0.098 (0.0005 to 0.196)"),
        ((-2.54, -0.027), (), "-1.3 (-2.5 to -0.03)"),
        ((-0.0004, 0.196), (), "+0.098 (-0.0004 to 0.196)"),
        ((0.104, 0.9), (0.1,), "+0.50 (0.104 to 0.90)"),
        ((0.0, 0.2), (), "+0.10 (0.00 to 0.20)"),
        ((1.004e12, 9e12), (1e12,), "+5.0e+12 (1.004e+12 to 9.0e+12)"),
    ],
)
def test_what_is_printed_says_on_which_side_of_a_limit_an_interval_lies(
    ends: tuple[float, float], limits: tuple[float, ...], text: str
) -> None:
    assert difference_text(sum(ends) / 2, *ends, limits=limits) == text


def test_a_configuration_against_itself_is_a_dash(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path, factors={"alignment": ["none", "dpo"]}, items=40)
    for i in range(6):
        simulate.edit(
            root,
            "demo",
            i,
            config=lambda config: config | {"evaluator": {"win_rate": {"baseline": "cell:alignment=none"}}},
        )
    table = build(making.results_of(records.read(root, "demo")), Layout())
    shown = {c.where["alignment"]: c.value for c in table.all_cells() if c.metric.endswith("win_rate")}
    assert shown["none"] == "-"
    assert float(shown["dpo"]) > 0
    ranks = {c.where["alignment"]: c.rank for c in table.all_cells() if c.metric.endswith("win_rate")}
    assert ranks == {"none": 0, "dpo": 0}, "what was measured against itself is not the best of anything"


def test_the_paired_view_shows_differences_and_a_dash_for_the_baseline(demo_store: Path) -> None:
    table = build(making.results_of(records.read(demo_store, "demo")), Layout())
    rows = [line.split(" | ") for line in differences_markdown(table).splitlines()[2:]]
    for cells, texts in zip(table.cells, rows, strict=True):
        for cell, text in zip(cells, texts[-len(cells) :], strict=True):
            if cell.verdict == "baseline":
                assert text.strip("| ") == "-"
            elif cell.comparison is not None and cell.comparison.difference > 1e-3:
                assert text.startswith(("+", "0.0"))
