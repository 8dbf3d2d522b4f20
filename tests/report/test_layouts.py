"""Layouts: the shipped ones, what they may say, and the survey's published values."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import simulate

from harness.errors import ConfigError, UnknownNameError
from harness.report import (
    arrange,
    claims,
    commands,
    layout,
    making,
    published,
    records,
    reference,
    table,
    tabulate,
    terminal,
)

T10 = {
    "size": {"small": {"model": "tiny"}, "large": {"model": "mini"}},
    "data": {"task": {"instruction": "task"}, "synthetic": {"instruction": "synthetic"}},
    "bits": {
        "16 bit": {"quantizer": "none"},
        "8 bit": {"quantizer": "rtn", "quantizer.bits": 8},
        "4 bit": {"quantizer": "rtn", "quantizer.bits": 4},
    },
}


@pytest.fixture(scope="module")
def quantization(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("t10")
    return simulate.experiment(root, name="t10", factors=T10, tasks=("recall", "mmlu"), items=20)


@pytest.mark.parametrize("name", sorted(layout.shipped()))
def test_every_shipped_layout_reads_and_its_claims_follow_the_grammar(name: str) -> None:
    found = layout.load_layout(name)
    assert found.title
    for claim in found.claims:
        claims.parse(claim["says"])
        assert claim["finding"]
        assert claim["source"]


def test_the_surveys_tables_are_found_by_their_numbers() -> None:
    for alias in ("T5", "T6", "T7", "T8", "T9", "T10", "T16"):
        assert layout.load_layout(alias).alias == alias


def test_the_surveys_findings_are_shipped_as_claims() -> None:
    numbers = {c["source"].rpartition(" ")[2] for c in layout.load_layout("T9").claims}
    assert numbers == {"1", "2", "3", "4", "5"}
    assert len(layout.load_layout("T10").claims) >= 3


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"row": ["peft"]}, "No option of report is called 'row'. Did you mean 'rows'"),
        ({"interval": "range"}, "report.interval is text ('range'), not 'ci' or 'sd' or 'none'"),
        ({"metrics": [{"label": "x"}]}, "report.metrics.0 lacks metric"),
        (
            {"metrics": [{"metric": "x", "better": "big"}]},
            "report.metrics.0.better is text ('big'), not 'higher' or 'lower' or 'none' or null",
        ),
    ],
)
def test_a_wrong_layout_says_what_would_work(raw: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        layout.parse(raw, where="report")


def test_unknown_layouts_factors_and_metrics_are_named(demo_store: Path) -> None:
    results = arrange.arrange(records.read(demo_store, "demo"))
    with pytest.raises(UnknownNameError, match="Did you mean 'quantization'"):
        layout.load_layout("quantisation")
    with pytest.raises(UnknownNameError, match=r"asked for by table 'x'.*'pfet'.*Did you mean 'peft'"):
        tabulate.build(results, layout.parse({"name": "x", "rows": ["pfet"]}, where="x"))
    with pytest.raises(UnknownNameError, match="No metric is called 'mmlu"):
        tabulate.build(results, layout.parse({"metrics": ["mmlu.acc"]}, where="x"))


def test_table_ten_has_the_surveys_rows_and_nested_columns(quantization: Path) -> None:
    results = arrange.arrange(records.read(quantization, "t10"))
    found = tabulate.build(results, layout.load_layout("T10"))
    assert [tuple(row.values()) for row in found.rows] == [
        ("small", "task"),
        ("small", "synthetic"),
        ("large", "task"),
        ("large", "synthetic"),
    ]
    per_level = [
        "chat: win rate",
        "knowledge: MMLU",
        "knowledge: bits per byte",
        "reasoning: recall",
    ]
    assert [(c.where["bits"], table.heading(c)) for c in found.columns] == [
        (bits, name) for bits in ("16 bit", "8 bit", "4 bit") for name in per_level
    ]
    assert found.columns[1].unit == "%"


def test_table_eight_shows_for_each_work_what_it_has_and_plans_the_rest(tmp_path: Path) -> None:
    factors = {
        "model": {"0.2 M": {"model": "micro"}, "0.9 M": {"model": "mini"}},
        "work": {"full tuning": {"peft": "full"}, "16 bit": {"quantizer": "none"}},
    }
    root = simulate.experiment(tmp_path / "store", name="t8", factors=factors, items=20)
    for path in (root / "records" / "t8").glob("*/record.json"):
        record = json.loads(path.read_text())
        if record["levels"]["work"] == "full tuning":
            record["facts"]["instruct"]["seconds"] = 12.5
            record["facts"]["instruct"]["tokens_per_second"] = 4000.0
        else:
            del record["facts"]["instruct"]
        record["metrics"].append(simulate.metric("efficiency", "efficiency", "decode", 100.0))
        path.write_text(json.dumps(record))
    results = arrange.arrange(records.read(root, "t8"))
    found = tabulate.build(results, layout.load_layout("T8"))
    shown = {
        work: [table.heading(c) for c in found.columns if c.where["work"] == work] for work in factors["work"]
    }
    assert shown == {"full tuning": ["time", "tuning", "trained", "decoding"], "16 bit": ["decoding"]}
    _, lines = terminal.unfolded(found)
    blank = {tuple(labels): [cell is None for cell in cells] for labels, cells in lines}
    assert blank["0.2 M", "16 bit"] == [True, True, True, False], "decoding stands under its own heading"
    out = making.report("t8", table="T8", store=root, out=tmp_path / "t8", quiet=True)
    for file in ("README.md", "index.html"):
        text = (out / file).read_text(encoding="utf-8")
        assert "Planned for LLaMA 7B to 65B" in text
        assert "16 (16)" in text, "65B is planned on sixteen GPUs, as printed"


def test_published_values_stand_beside_ours_and_say_what_differs(quantization: Path, tmp_path: Path) -> None:
    out = making.report("t10", table="T10", store=quantization, out=tmp_path, compare="published", quiet=True)
    rows = json.loads((out / "published.json").read_text())
    assert len(rows) == 2 * 2 * 3 * 4
    first = next(r for r in rows if r["metric"] == "lm_eval.mmlu.acc")
    assert (first["size"], first["data"], first["bits"]) == ("small", "task", "16 bit")
    assert first["published"] == 0.4734
    assert first["ours"] is not None
    assert not first["same_setting"]
    assert any("model.path is absent, published *llama-7b*" in d for d in first["differs"])
    assert "Beside the published values" in (out / "index.html").read_text(encoding="utf-8")
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "| lm_eval.mmlu.acc (%) | " in text, "in the unit of the table's column"
    assert "| 47.34 | no: " in text


OTHER_TABLES = {
    "T8": (
        {
            "model": ["LLaMA 7B", "LLaMA 13B"],
            "work": {"full tuning": {"peft": "full"}, "LoRA tuning": {"peft": "lora"}},
        },
        {"instruct.micro_batch_size": [8, 8, 80, 48], "instruct.seconds": [10800, 11160, 12600, 18360]},
    ),
    "T9": (
        {
            "size": {"small": {"model": "tiny"}, "large": {"model": "mini"}},
            "data": ["task", "chat", "complexity"],
        },
        {"win_rate": [0.2377, 0.2212, 0.813, 0.7713, 0.7696, 0.7794]},
    ),
    "T16": (
        {"model": ["ChatGPT", "Pythia 7B"]},
        {"mmlu.acc": [], "gsm8k.exact_match": [0.7847, 0.0182], "webshop.success": [0.156, 0.018]},
    ),
}
"""Table -> factors, and published values by the last parts of a metric's name, column by column."""


@pytest.mark.parametrize("alias", sorted(OTHER_TABLES))
def test_the_other_tables_are_made_and_compared_in_every_format(alias: str, tmp_path: Path) -> None:
    factors, expected = OTHER_TABLES[alias]
    root = simulate.experiment(tmp_path / "s", name="x", factors=factors, tasks=("recall", "mmlu"), items=12)
    arguments = [
        "x",
        "--table",
        alias,
        "--store",
        str(root),
        "--out",
        str(tmp_path),
        "--compare",
        "published",
    ]
    assert commands.main([*arguments, "--format", "md,latex,csv,json,html"]) == 0
    for name in ("README.md", "table.tex", "table.csv", "table.json", "index.html", "published.json"):
        assert (tmp_path / name).stat().st_size > 100, name
    rows = json.loads((tmp_path / "published.json").read_text())
    for metric, values in expected.items():
        found = [r["published"] for r in rows if r["metric"] == metric or r["metric"].endswith("." + metric)]
        assert sorted(found) == pytest.approx(sorted(values)), metric
    assert all(r["same_setting"] or r["differs"] for r in rows), (
        "where it is not the same, it says what is not"
    )


def test_a_published_value_of_the_same_setting_is_said_to_be(quantization: Path) -> None:
    results = arrange.arrange(records.read(quantization, "t10"))
    spec = {
        "source": "a paper",
        "settings": {"optimizer.method": "adamw", "model.*": "*"},
        "rows": [
            {"where": {"size": "small", "data": "task", "bits": "16 bit"}, "values": {"recall.acc": 0.5}}
        ],
    }
    spec["settings"] = {"optimizer.method": "adamw"}
    (found,) = published.beside(layout.parse({"published": spec}, where="x"), results)
    assert found.same
    assert found.ours is not None


def test_comparing_a_table_without_published_values_is_an_error(demo_store: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no published values; quantization"):
        making.report("demo", store=demo_store, out=tmp_path, compare="published", quiet=True)


def test_published_values_are_the_surveys() -> None:
    """Sums over the survey's tables 9 and 10, so that no digit slips."""
    t9, t10 = (layout.load_layout(name).published["rows"] for name in ("T9", "T10"))
    assert len(t10) == 18
    assert sum(r["values"]["mmlu.acc"] for r in t10) == pytest.approx(
        47.34 + 40.87 + 41.30 + 51.67 + 47.63 + 47.58
        + 47.02 + 39.98 + 39.34 + 51.02 + 47.04 + 47.71
        + 46.23 + 39.24 + 40.08 + 50.48 + 46.20 + 45.77
    )  # fmt: skip
    assert sum(r["values"]["mmlu.acc"] for r in t9) == pytest.approx(
        38.58 + 38.11 + 37.52 + 41.26 + 43.69 + 39.73 + 38.01 + 32.55 + 33.81
        + 34.12 + 47.49 + 36.73 + 41.16 + 43.50 + 46.89 + 44.97 + 43.15 + 38.07
    )  # fmt: skip


@pytest.mark.parametrize("name", ["T5", "T6", "T7"])
def test_reference_tables_need_no_records(name: str, tmp_path: Path) -> None:
    out = making.report(None, table=name, out=tmp_path, quiet=True)
    assert {p.suffix for p in out.iterdir()} == {".md", ".tex", ".csv", ".json", ".html"}
    heads, rows = reference.table(layout.load_layout(name))
    assert heads[-1] == "harness"
    assert all(len(row) == len(heads) for row in rows)
    assert len(rows) >= 15


@pytest.mark.parametrize("name", ["T5", "T6", "T7"])
@pytest.mark.parametrize("width", ["80", "160"])
def test_a_terminal_loses_no_word_of_a_reference_table(
    name: str, width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    chosen = layout.load_layout(name)
    reference.show(chosen)
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= int(width)
    longest = max((row[-1] for row in reference.table(chosen)[1]), key=len)
    assert all(word in shown for word in longest.split())


def test_formulas_list_every_installed_method_of_their_axes() -> None:
    _, rows = reference.table(layout.load_layout("T6"))
    shown = {row[-1] for row in rows}
    for axis in ("norm", "position", "feed_forward", "norm_position"):
        for name in reference.installed()[axis]:
            assert f"{axis}={name}" in shown


def test_a_method_that_is_not_installed_is_marked() -> None:
    assert reference.marked("norm=batchnorm", {"norm": {"rmsnorm": ""}}) == "norm=batchnorm (not installed)"
    assert reference.marked("norm=rmsnorm", {"norm": {"rmsnorm": ""}}) == "norm=rmsnorm"


def test_an_experiment_without_a_name_or_table_is_an_error() -> None:
    with pytest.raises(ConfigError, match="needs an experiment"):
        making.report(None)


def test_published_rows_find_those_who_play_their_roles(tmp_path: Path) -> None:
    """By what the records' config says, whatever factors and levels are called."""
    spec = {
        "how": {
            "dense": {"quantizer": "none"},
            "round 4": {"quantizer": "rtn", "quantizer.bits": 4},
            "gptq 4": {"quantizer": "gptq", "quantizer.bits": 4},
            "nf4": {"quantizer": "nf4"},
            "round 3": {"quantizer": "rtn", "quantizer.bits": 3},
        }
    }
    root = simulate.experiment(tmp_path, factors=spec, tasks=("mmlu",), items=12)
    found = published.beside(layout.load_layout("T10"), arrange.arrange(records.read(root, "demo")))
    by_bits = {
        bits: {b.where["how"] for b in found if b.at.endswith(bits)} for bits in ("16 bit", "8 bit", "4 bit")
    }
    assert by_bits == {"16 bit": {"dense"}, "8 bit": set(), "4 bit": {"round 4", "gptq 4", "nf4"}}
    assert all("size is not a factor here, published small" in b.differs for b in found if "small" in b.at)


def test_sizes_stand_beside_the_published_ones_in_their_order(tmp_path: Path) -> None:
    factors = {"model": {"tiny": {"model.dim": 64}, "mini": {"model.dim": 96}}, "work": ["16 bit", "8 bit"]}
    root = simulate.experiment(tmp_path, factors=factors, items=12)
    found = published.beside(layout.load_layout("T8"), arrange.arrange(records.read(root, "demo")))
    assert {(b.at.split(" · ")[0], b.where["model"]) for b in found} == {
        ("LLaMA 7B", "tiny"),
        ("LLaMA 13B", "mini"),
    }
    assert all(f"model is {b.where['model']}, published {b.at.split(' · ')[0]}" in b.differs for b in found)


def test_published_values_of_a_layout_stand_in_its_reports_unasked(tmp_path: Path) -> None:
    factors = {"size": ["small", "large"], "data": ["task", "chat"], "bits": ["16 bit", "4 bit"]}
    root = simulate.experiment(
        tmp_path / "s", factors=factors, tasks=("mmlu",), items=12, report="quantization"
    )
    text = (making.report("demo", store=root, out=tmp_path / "o", quiet=True) / "README.md").read_text()
    assert "## Beside the published values" in text
    assert "| 47.34 |" in text


def test_a_wide_table_keeps_what_is_decided_on_and_leaves_groups_of_items_to_figures(
    demo_store: Path,
) -> None:
    found = records.read(demo_store, "demo")
    grouped = {f"acc.length={n}": 0.5 for n in (64, 128, 256, 512, 1024, 2048)}
    for record in found:
        record.data["experiment"]["primary"] = ["acc.length=2048"]  # type: ignore[index]
        first = record.data["metrics"][0]
        record.data["metrics"].extend(
            {**first, "evaluator": "long_context", "task": "passkey", "metric": name, "value": value}
            for name, value in {"acc": 0.5, **grouped}.items()
        )
    kept = [column.metric for column in layout.default_metrics(arrange.arrange(found))]
    assert "long_context.passkey.acc" in kept
    assert [name for name in kept if "=" in name] == ["long_context.passkey.acc.length=2048"]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"metrics": [{"metric": "x", "scale": 0}]}, "scale=0 must be above 0"),
        ({"rows": ["peft"], "columns": ["peft"]}, "peft stands twice in rows and columns"),
    ],
)
def test_a_layout_that_would_divide_by_nothing_or_place_a_factor_twice_is_refused(
    raw: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        layout.parse(raw, where="report")


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"where": {"peft": []}}, "report.where.peft keeps no level"),
        ({"baseline": {"peft": "nope"}}, "No level of factor 'peft' is called 'nope'"),
    ],
)
def test_a_layout_that_does_not_fit_its_records_says_so(
    demo_store: Path, tmp_path: Path, raw: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        making.report("demo", store=demo_store, out=tmp_path, table=raw, formats=("csv",), quiet=True)


def test_what_was_to_be_decided_on_and_was_not_measured_is_named(demo_store: Path) -> None:
    results = making.results_of(records.read(demo_store, "demo"))
    found = tabulate.build(results, layout.parse({"primary": ["bits_per_byte", "nope.acc"]}, where="x"))
    assert "Not decided on, as nothing here measured it: nope.acc." in found.footnotes
