"""Looks that tell configurations apart, legends beside the curves, points that say their name."""

from __future__ import annotations

import html
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simulate
from matplotlib.figure import Figure

from harness.report import making, records, views
from harness.report.draw_effects import forest, marginal_effects, pareto_fronts, rows_of
from harness.report.drawing import (
    LONGEST,
    MAX_CURVES,
    PALETTE,
    draw,
    legend,
    legend_height,
    logarithmic,
    look,
    short,
)
from harness.report.figures import figures
from harness.report.layout import Layout, parse
from harness.report.runs import measuring, training
from harness.report.table import metric_columns
from harness.report.tabulate import build

DEUTERANOPE = np.array(
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)
"""Linear RGB as seen without green cones: Machado et al. 2009, doi:10.1109/TVCG.2009.113."""


def seen(colour: str) -> np.ndarray:
    """A colour's lightness and opponents (Oklab, Ottosson 2020) as a deuteranope sees it."""
    srgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    there = np.clip(DEUTERANOPE @ linear, 0, 1)
    cones = np.array(
        [
            [0.41222147, 0.53633254, 0.05144599],
            [0.2119035, 0.6806995, 0.1073970],
            [0.0883025, 0.2817188, 0.6299787],
        ]
    )
    lab = np.array(
        [
            [0.21045426, 0.79361779, -0.00407205],
            [1.97799850, -2.42859220, 0.45059371],
            [0.02590404, 0.78277177, -0.80867577],
        ]
    )
    return np.asarray(lab @ np.cbrt(cones @ there))


def test_colours_stay_apart_without_green_cones() -> None:
    distances = [float(np.linalg.norm(seen(a) - seen(b))) for a, b in itertools.combinations(PALETTE, 2)]
    assert min(distances) > 0.05, "a just noticeable difference is about 0.02"


def test_thirty_configurations_have_thirty_looks_and_no_two_differ_by_colour_alone() -> None:
    looks = [look(i) for i in range(MAX_CURVES)]
    assert len({(str(x["color"]), str(x["linestyle"])) for x in looks}) == MAX_CURVES
    for first, second in itertools.combinations(looks[:10], 2):
        assert first["marker"] != second["marker"]


def test_a_legend_covers_no_panel() -> None:
    texts = [f"configuration {i}" for i in range(12)]
    boxes: list[Any] = []

    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        legend(canvas, {text: axes.plot([0, 1], [i, i], **look(i))[0] for i, text in enumerate(texts)})
        canvas.draw_without_rendering()
        boxes[:] = [axes.get_window_extent(), canvas.legends[0].get_window_extent(), canvas.bbox]

    draw("x", "x", "x", size=(5, 2.8 + legend_height(texts, 5)), paint=paint)
    panel, box, whole = boxes
    assert not panel.overlaps(box)
    assert whole.y0 <= box.y0
    assert box.x1 <= whole.x1
    assert panel.height > 100, "the panel keeps its place"


def test_points_of_a_front_say_their_name_and_effects_have_the_unit_of_their_column(demo_store: Path) -> None:
    results = making.results_of(records.read(demo_store, "demo"))
    layout = parse(
        {"metrics": [{"metric": "recall.acc", "scale": 100, "unit": "%"}, {"metric": "memory"}]}, where="x"
    )
    made = {figure.name: figure for figure in figures(build(results, layout), results)}
    for levels in results.records:
        assert f"<title>{' · '.join(levels)}: memory (MiB) " in made["pareto"].svg
    assert ">points</text>" in made["marginal_effects"].svg


def test_a_front_tells_the_levels_of_a_factor_that_has_several_apart(tmp_path: Path) -> None:
    simulate.experiment(tmp_path, factors={"peft": ["full", "lora"], "model": ["small"]})
    results = making.results_of(records.read(tmp_path, "demo"))
    layout = parse({"metrics": [{"metric": "recall.acc"}, {"metric": "memory"}]}, where="x")
    front = pareto_fronts(build(results, layout), results)
    assert front is not None
    assert ">lora</text>" in front.svg


def test_a_loss_has_a_figure_whatever_its_stage_is_called(tmp_path: Path) -> None:
    root = simulate.experiment(tmp_path, factors={"peft": ["full", "lora"]})
    for i in range(6):
        simulate.edit(
            root,
            "demo",
            i,
            facts=lambda facts: facts | {"distil": {**facts["instruct"], "steps": 80}},
            stages=lambda stages: [*stages, {**stages[2], "stage": "distil", "key": "k" + stages[2]["key"]}],
        )
    results = making.results_of(records.read(root, "demo"))
    assert "distil" in training(results.all_records()[0].data)
    assert "loss_distil" in {figure.name for figure in figures(build(results, parse({}, where="x")), results)}


def test_stages_that_measure_are_those_that_declare_to_make_no_model() -> None:
    assert {"evaluate", "generate"} <= measuring()
    assert not {"pretrain", "quantize", "corpus"} & measuring()


HOSTILE = ("$x_1$", "$\\frac{1$", "_private", "emoji 🙂", "q" * 300, "<script>", "a & b")


@pytest.mark.filterwarnings("error")
def test_a_label_in_a_figure_is_text_whatever_it_holds() -> None:
    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        legend(canvas, {text: axes.plot([0, 1], [i, i], **look(i))[0] for i, text in enumerate(HOSTILE)})

    made = draw("x", "x", "x", size=(5, 2.8 + legend_height(list(HOSTILE), 5)), paint=paint)
    shown = [html.unescape(text) for text in re.findall(r"<text[^>]*>([^<]*)</text>", made.file)]
    assert {*HOSTILE[:4], "<script>", "a & b", short(HOSTILE[4])} <= set(shown)
    assert len(short(HOSTILE[4])) == LONGEST
    assert made.render("png").startswith(b"\x89PNG")


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    def paint(canvas: Any) -> None:
        axes = canvas.subplots()
        axes.plot([100, 3e6], [0, 1])
        logarithmic(axes)

    made = draw("x", "x", "x", size=(5, 2.8), paint=paint)
    assert {"1000", "10k", "1M"} <= set(re.findall(r"<text[^>]*>([^<]*)</text>", made.file))
    assert "mathdefault" not in made.file


def test_effects_of_nothing_stand_in_the_middle_of_a_plain_axis(tmp_path: Path) -> None:
    """Matplotlib leaves 1e-17 of the line at 0 in a panel that is not the first."""
    root = simulate.experiment(tmp_path, factors={"x": ["a", "b"]}, tasks=("recall",), items=12)
    results = making.results_of(records.read(root, "demo"))
    figure = marginal_effects(build(results, Layout()), results)
    assert figure is not None
    assert "1e" not in "".join(re.findall(r"<text[^>]*>([^<]*)</text>", figure.file))


def test_panels_of_metrics_that_only_some_cells_have_share_true_names(tmp_path: Path) -> None:
    """Names stand at the first panel alone: each row of every other one must be that name's effect."""
    root = simulate.experiment(tmp_path, factors={"x": ["a", "b", "c", "d"]}, tasks=("recall",), items=12)
    for path in root.glob("records/demo/*/record.json"):
        record = json.loads(path.read_text())
        if record["levels"]["x"] == "b":
            record["metrics"] = [m for m in record["metrics"] if m["task"] != "recall"]
            path.write_text(json.dumps(record))
    found = build(making.results_of(records.read(root, "demo")), parse({}, where="x"))
    panels = [(c, views.marginal_effects(found.decisions, c.info.name)) for c in metric_columns(found)]
    assert {len(effects) for _, effects in panels} == {2, 3}
    assert rows_of(panels) == [("x", level, "") for level in "bcd"]
    axes = Figure().subplots()
    column, effects = next(panel for panel in panels if len(panel[1]) == 2)
    forest(axes, effects, {row: row[1] for row in rows_of(panels)}, column)
    drawn = [float(line.get_ydata()[0]) for line in axes.lines if line.get_marker() not in ("None", None)]
    assert drawn == [1, 2], "nothing at the name of what has no number"


def test_a_figure_that_leaves_rows_out_says_so_and_keeps_the_clearest(tmp_path: Path) -> None:
    factors = {"x": list("abcdefg"), "y": list("pqrs")}
    root = simulate.experiment(tmp_path, factors=factors, tasks=(), items=12)
    for path in root.glob("records/demo/*/record.json"):
        record = json.loads(path.read_text())
        if record["levels"] == {"x": "g", "y": "s"}:
            record["metrics"][0]["value"] += 9
            path.write_text(json.dumps(record))
    results = making.results_of(records.read(root, "demo"))
    made = {figure.name: figure for figure in figures(build(results, parse({}, where="x")), results)}
    assert "Of 18 changes those that stand out most." in made["interactions"].caption
    assert ">g | y = s</text>" in made["interactions"].svg
