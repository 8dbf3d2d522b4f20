"""The table: marks, ties, gaps with their reasons, and every format of it."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import pytest
import simulate

from harness.errors import ConfigError, UnknownNameError
from harness.report import making, quantities, records, table, tabulate, writers
from harness.report.frames import MetricInfo
from harness.report.latex import latex
from harness.report.layout import Layout, MetricColumn, parse


def built(store: Path, **options: object) -> table.Table:
    results = making.results_of(records.read(store, "demo"))
    return tabulate.build(results, parse(options, where="x") if options else Layout())


def cell_at(found: table.Table, metric: str, **where: str) -> table.TableCell:
    return next(c for c in found.all_cells() if c.metric.endswith(metric) and c.where == where)


BASE = {"peft": "full", "alignment": "none", "quantizer": "16 bit"}


@pytest.fixture(scope="module")
def sharp(tmp_path_factory: pytest.TempPathFactory) -> table.Table:
    """Five seeds, many items, large effects: every mark occurs."""
    effects = {"alignment.dpo": 1.5, "quantizer.4 bit": -1.5, "quantizer.8 bit": 0.0}
    root = simulate.experiment(
        tmp_path_factory.mktemp("sharp"),
        seeds=range(5), items=400, tasks=("recall",), effects=effects, seed_sd=0.02,
    )  # fmt: skip
    return built(root)


def test_the_baseline_better_worse_and_ties_are_told_apart(sharp: table.Table) -> None:
    metric = "recall.acc"
    assert cell_at(sharp, metric, **BASE).verdict == "baseline"
    assert cell_at(sharp, metric, **{**BASE, "alignment": "dpo"}).verdict == "better"
    assert cell_at(sharp, metric, **{**BASE, "quantizer": "4 bit"}).verdict == "worse"
    tie = cell_at(sharp, metric, **{**BASE, "quantizer": "8 bit"})
    assert tie.verdict == "tie"
    assert table.sign(tie) == "≈"
    assert tie.comparison is not None
    assert tie.comparison.p is not None
    assert tie.comparison.p > 0.05
    assert tie.comparison.family == 11
    assert tie.comparison.detectable
    assert cell_at(sharp, "tokens_per_second", **{**BASE, "quantizer": "4 bit"}).verdict == "secondary"


def test_lower_is_better_where_the_metric_says_so(sharp: table.Table) -> None:
    assert cell_at(sharp, "bits_per_byte", **{**BASE, "alignment": "dpo"}).verdict == "better"
    assert cell_at(sharp, "memory", **{**BASE, "quantizer": "4 bit"}).verdict == "better"


def test_the_best_is_bold_and_what_may_be_best_is_marked(tmp_path: Path) -> None:
    effects = {"alignment.dpo": 0.0, "quantizer.4 bit": -2.5, "quantizer.8 bit": 0.0, "peft.full": 0.0}
    simulate.experiment(tmp_path, seeds=range(5), items=300, tasks=("recall",), effects=effects, seed_sd=0.01)
    found = built(tmp_path, rows=["quantizer"], columns=["peft"], where={"alignment": "none"})
    ranks = {row["quantizer"]: cells[1].rank for row, cells in zip(found.rows, found.cells, strict=True)}
    assert sorted([ranks.pop("16 bit"), ranks.pop("8 bit")]) == [1, 2]
    assert ranks == {"4 bit": 0}


def test_the_worst_value_is_never_bold_however_noisy_and_fewer_seeds_are_not_ranked(tmp_path: Path) -> None:
    factors = {"peft": ["full", "lora", "dora"]}
    simulate.experiment(tmp_path, factors=factors, seeds=range(4), tasks=(), effects={})
    values = {"full": [1.0, 1.1, 0.9, 1.0], "lora": [9.0, 1.0, 14.0, 2.0], "dora": [0.5, 0.5, 0.5, None]}
    for path in tmp_path.glob("records/demo/*/record.json"):
        record = json.loads(path.read_text())
        value = values[record["levels"]["peft"]][record["seed"]]
        record["metrics"] = [simulate.metric("lm_eval", "t", "loss", value, higher_is_better=False)]
        path.write_text(json.dumps(record))
    found = built(tmp_path)
    ranks = {row["peft"]: cells[0].rank for row, cells in zip(found.rows, found.cells, strict=True)}
    assert ranks["full"] == 1
    assert ranks["lora"] != 1
    assert ranks["dora"] == 0
    assert "A mean of fewer seeds than the others' is not ranked." in found.caption


def test_what_no_test_speaks_of_is_not_said_to_be_among_the_best(tmp_path: Path) -> None:
    factors = {"peft": ["full", "lora", "dora"]}
    simulate.experiment(tmp_path, factors=factors, seeds=[0], tasks=(), effects={})
    for value, path in enumerate(sorted(tmp_path.glob("records/demo/*/record.json"))):
        record = json.loads(path.read_text())
        record["metrics"] = [simulate.metric("divergence", "t", "kl_p99", value, higher_is_better=False)]
        path.write_text(json.dumps(record))
    found = built(tmp_path)
    assert {c.verdict for c in found.all_cells()} == {"baseline", "undecided"}
    assert sorted(c.rank for c in found.all_cells()) == [0, 0, 1]


def test_nothing_is_best_where_all_are_equal(demo_store: Path) -> None:
    found = built(
        demo_store, rows=["peft", "alignment", "quantizer"], metrics=["memory"], where={"quantizer": "16 bit"}
    )
    assert {c.rank for c in found.all_cells()} == {0}


def test_an_experiment_declares_what_it_decides_on(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, seeds=range(5), effects={"alignment.dpo": 1.5}, seed_sd=0.02, items=300)
    for i in range(60):
        simulate.edit(tmp_path, "demo", i, experiment=lambda e: {**e, "primary": ["recall.acc"]})
    where = {**BASE, "alignment": "dpo"}
    found = built(tmp_path)
    assert cell_at(found, "recall.acc", **where).verdict == "better"
    other = cell_at(found, "instructions.acc", **where)
    assert other.verdict == "secondary"
    assert other.comparison is not None
    assert other.comparison.low is not None
    assert "instructions acc" in next(line for line in found.caption if line.startswith("Not decided on"))
    laid_out = built(tmp_path, primary=["instructions.acc"])
    assert cell_at(laid_out, "instructions.acc", **where).verdict == "better"


def test_one_seed_is_about_checkpoints_and_says_so(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, seeds=(0,), items=300, tasks=("recall",), effects={"alignment.dpo": 2.0})
    found = built(tmp_path)
    cell = cell_at(found, "recall.acc", **{**BASE, "alignment": "dpo"})
    assert cell.comparison is not None
    assert cell.comparison.test == "document bootstrap"
    assert cell.comparison.about == "checkpoints"
    assert table.sign(cell) == "△"
    text = " ".join(found.caption)
    assert "as fixed checkpoints only: bootstrap over documents" in text
    assert "1 seed where 3 are needed" in text
    assert table.sign(cell_at(found, "bits_per_byte", **{**BASE, "alignment": "dpo"})) == "?"


def test_one_quantity_in_several_units_is_decided_on_once() -> None:
    """lm-eval's wikitext gives three monotone functions of one likelihood; ours two of last words."""
    wikitext = [f"lm_eval.wikitext.{m}" for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")]
    words = [f"lm_eval.last_word.{m}" for m in ("acc", "perplexity", "nats_per_word")]
    alone = ["lm_eval.lambada.acc", "lm_eval.lambada.perplexity"]
    known = [*wikitext, *words, *alone]
    decided = [metric for metric in known if quantities.primary_by_default(metric, known)]
    assert decided == [wikitext[2], words[0], words[2], *alone]


@pytest.mark.parametrize("status", ["oom", "diverged", "incompatible", "failed", "timeout", "lost"])
def test_a_cell_without_a_number_shows_its_outcome(tmp_path: Path, status: str) -> None:
    simulate.experiment(tmp_path, seeds=(0,), tasks=())
    outcome = {"status": status, "reason": "the reason", "stage": "align", "step": 7}
    folder = simulate.edit(tmp_path, "demo", 2, outcome=outcome, metrics=[])
    levels = json.loads((folder / "record.json").read_text())["levels"]
    cell = cell_at(built(tmp_path), "bits_per_byte", **levels)
    assert cell.verdict == "missing"
    assert cell.missing == [f"seed 0: {status} in align at step 7: the reason"]
    assert f"{status} in align at step 7: the reason" in writers.markdown(built(tmp_path))


def test_nan_and_unmeasured_values_are_said_and_never_averaged(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, tasks=())

    def spoil(metrics: list[dict[str, object]]) -> list[dict[str, object]]:
        return [{**m, "value": math.nan} for m in metrics if m["metric"] != "memory"]

    folder = simulate.edit(tmp_path, "demo", 0, metrics=spoil)
    record = json.loads((folder / "record.json").read_text())
    found = built(tmp_path)
    cell = cell_at(found, "bits_per_byte", **record["levels"])
    assert cell.estimate is not None
    assert cell.estimate.num_seeds == 2
    said = [found.footnotes[note] for note in cell.notes]
    assert f"mean of 2 of 3 seeds; seed {record['seed']}: the value is nan" in said
    assert "not measured" in cell_at(found, "efficiency.memory", **record["levels"]).missing[0]


def test_two_items_give_no_interval_and_no_test(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, seeds=(0,), items=2, tasks=("recall",))
    found = built(tmp_path)
    cell = cell_at(found, "recall.acc", **{**BASE, "peft": "lora"})
    assert cell.estimate is not None
    assert cell.estimate.low is None
    assert cell.comparison is not None
    assert cell.comparison.p is None
    assert "only 2 items" in found.footnotes[cell.notes[0]]


def test_rows_the_sweep_does_not_have_are_left_out_and_gaps_are_dashes(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, seeds=(0,), tasks=())
    for path in tmp_path.glob("records/demo/*/record.json"):
        levels = json.loads(path.read_text())["levels"]
        if levels["peft"] == "lora" and (levels["alignment"] == "dpo" or levels["quantizer"] == "8 bit"):
            path.unlink()
    found = built(tmp_path)
    assert [tuple(r.values()) for r in found.rows] == [("full", "none"), ("full", "dpo"), ("lora", "none")]
    assert writers.why_missing(found.cells[2][4]) == "-"


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("lm_eval.recall.acc", "recall acc"),
        ("perplexity.perplexity.bits_per_byte", "bits per byte"),
        ("long_context.passkey.acc.length=64.depth=0.5", "passkey acc, length=64, depth=0.5"),
        ("ruler.qa.score.depth=0", "qa score, depth=0"),
        ("lm_eval.mmlu_v1.2.acc", "mmlu v1.2 acc"),
        ("answers.answers.answer_loss", "answer loss"),
    ],
)
def test_a_heading_says_task_metric_and_of_which_items(metric: str, said: str) -> None:
    found = table.Column(where={}, spec=MetricColumn(metric=metric), info=MetricInfo(name=metric))
    assert table.heading(found) == said


def test_a_baseline_without_a_number_is_said_to_compare_with_nothing(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, factors={"x": ["a", "b"]}, items=12, tasks=())
    found = records.read(tmp_path, "demo")
    for record in found:
        if record.levels == {"x": "a"}:
            record.data["outcome"].update(status="failed", reason="boom")
    made = tabulate.build(making.results_of(found), Layout())
    assert "It has no number here, so nothing is compared with it." in made.caption


@pytest.mark.parametrize(
    ("half", "style", "said"),
    [(0.0004, ".3f", "<0.001"), (0.0006, ".3f", "0.001"), (0.0, ".3f", "0.000"), (0.3, ".0f", "<1")],
)
def test_a_spread_is_not_rounded_to_nothing(half: float, style: str, said: str) -> None:
    assert tabulate.spread_text(half, style) == said


def test_markdown_has_a_cell_for_every_heading(demo_store: Path) -> None:
    lines = writers.markdown(built(demo_store)).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert "16 bit<br>bits per byte (bits/byte) ↓" in lines[0]


def test_latex_is_balanced_and_escaped(sharp: table.Table) -> None:
    text = latex(sharp)
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert r"\multicolumn{5}{c}{16 bit}" in text
    assert r"\cmidrule(lr){3-7}" in text
    assert r"simultaneous 95 \% intervals" in text
    assert not re.search(r"(?<!\\)[%&_#](?!\s)", text.replace(" & ", " ").split("\n", 1)[1])


def test_csv_and_json_hold_every_cell_with_its_test(sharp: table.Table) -> None:
    rows = list(csv.DictReader(io.StringIO(writers.as_csv(sharp))))
    cells = json.loads(writers.as_json(sharp))["cells"]
    assert len(rows) == len(cells) == 60
    for row, cell in zip(rows, cells, strict=True):
        assert float(row["mean"]) == cell["mean"]
        assert row["verdict"] == cell["verdict"]
    assert {"low", "high", "p", "family", "test", "about", "detectable", "cells"} <= set(rows[0])


def test_a_factor_called_like_a_column_keeps_its_levels(tmp_path: Path) -> None:
    factors = {"rank": {"4": {"peft.rank": 4}, "8": {"peft.rank": 8}}, "test": ["a", "b"]}
    simulate.experiment(tmp_path, factors=factors, tasks=(), items=12)
    (first, *_) = list(csv.DictReader(io.StringIO(writers.as_csv(built(tmp_path)))))
    assert (first["factor.rank"], first["factor.test"]) == ("4", "a")
    assert first["rank"] in "012"


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [math.inf, -math.inf, 1e300, math.nan])
def test_a_number_too_large_to_count_with_is_said_and_hurts_no_other(tmp_path: Path, value: float) -> None:
    simulate.experiment(tmp_path / "s", tasks=("recall", "instructions"), items=12)
    whole = built(tmp_path / "s")
    simulate.edit(
        tmp_path / "s",
        "demo",
        0,
        metrics=lambda found: [{**m, "value": value, "stderr": value} for m in found],
    )
    spoilt = built(tmp_path / "s")
    changed = [
        (a, b) for a, b in zip(whole.all_cells(), spoilt.all_cells(), strict=True) if a.estimate != b.estimate
    ]
    assert {b.missing[0].partition(": ")[2] for _, b in changed} == {f"the value is {value:g}"}
    assert len({tuple(b.where.items()) for _, b in changed}) == 1, "one configuration"
    out = making.report("demo", store=tmp_path / "s", out=tmp_path / "o", quiet=True)
    assert "NaN" not in (out / "table.json").read_text()


def test_a_value_that_is_not_a_number_takes_no_items_from_others(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, seeds=(0,), tasks=("recall",), items=40)
    simulate.edit(tmp_path, "demo", 3, metrics=lambda found: [{**m, "value": math.nan} for m in found])
    tests = {
        c.comparison.test for c in built(tmp_path).all_cells() if c.metric.endswith("acc") and c.comparison
    }
    assert "document bootstrap" in tests


def test_an_unknown_format_is_named(demo_store: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'latex'"):
        making.report("demo", store=demo_store, out=tmp_path, formats=["latx"])


def test_a_report_stays_below_the_store_unless_it_is_told_where_to_go(
    demo_store: Path, own_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = making.report("demo", store=demo_store, formats=["csv"], quiet=True)
    assert folder == demo_store / "reports" / "demo"
    committed = folder / "records.json.gz"
    for asked, layout, store, name in (
        ("demo", None, committed, "demo"),
        (None, "T5", None, "reference"),
    ):
        made = making.report(asked, table=layout, store=store, formats=["csv"], quiet=True)
        assert made == own_store / "reports" / name
    assert not Path("reports").exists()


def test_the_report_imports_neither_torch_nor_transformers(demo_store: Path, tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys; from harness.report.making import report\n"
        f"report('demo', store={str(demo_store)!r}, out={str(tmp_path)!r}, quiet=True)\n"
        "print([m for m in ('torch', 'transformers', 'peft', 'lm_eval', 'statsmodels') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_sweep_that_measured_nothing_has_a_report_that_says_why(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path / "s", factors={"peft": ["full"]}, seeds=(0,), tasks=())
    outcome = {"status": "oom", "reason": "no memory", "stage": "pretrain", "step": 3}
    simulate.edit(root, "demo", 0, outcome=outcome, metrics=[])
    out = making.report("demo", store=root, out=tmp_path / "o", quiet=True)
    for name in ("README.md", "table.tex", "index.html"):
        text = (out / name).read_text()
        assert "No record holds a number that this table shows: oom in pretrain at step 3: no memory" in text
    assert "- 1 configuration, seed 0." in (out / "README.md").read_text()


@pytest.mark.parametrize(
    ("number", "spread", "shown"),
    [
        (8.1838e29, 1e28, "8.18e+29"),
        (3e-9, 1e-10, "3.00e-09"),
        (17179869184.0, 0.0, "17179869184"),
        (1.25e9, 1e7, "1250000000"),
    ],
)
def test_numbers_that_plain_digits_do_not_show_are_powers_of_ten(
    number: float, spread: float, shown: str, tmp_path: Path
) -> None:
    root = simulate.experiment(tmp_path, factors={"peft": ["full"]}, tasks=(), items=1)
    for i in range(3):
        value = number + (i - 1) * spread
        simulate.edit(root, "demo", i, metrics=[simulate.metric("perplexity", "p", "word_perplexity", value)])
    (cell,) = built(root).all_cells()
    assert cell.value == shown


def test_a_table_without_numbers_averages_over_nothing(tmp_path: Path) -> None:
    factors = {"peft": ["full", "lora"], "bits": ["4", "8"]}
    root = simulate.experiment(tmp_path, factors=factors, seeds=(0,), tasks=(), items=1)
    for i in range(4):
        simulate.edit(root, "demo", i, metrics=[])
    found = built(root)
    assert found.columns == []
    assert not any("Averaged over" in line for line in found.caption)


def test_a_layout_whose_levels_no_record_has_together_is_refused(tmp_path: Path) -> None:
    factors = {"peft": ["full", "lora"], "bits": ["4", "8"]}
    root = simulate.experiment(tmp_path, factors=factors, seeds=(0,), tasks=())
    for path in root.glob("records/demo/*/record.json"):
        if json.loads(path.read_text())["levels"] == {"peft": "full", "bits": "4"}:
            path.unlink()
    layout = parse({"where": {"peft": "full", "bits": [4]}}, where="x")
    with pytest.raises(ConfigError, match="no record has peft=full, bits=4"):
        tabulate.build(making.results_of(records.read(root, "demo")), layout)
