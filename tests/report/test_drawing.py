"""Looks that tell configurations apart, legends beside the curves, points that say their name."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import simulate

from harness.report import making, records
from harness.report.drawing import MAX_CURVES, PALETTE, draw, legend, legend_height, look
from harness.report.figures import figures
from harness.report.layout import parse
from harness.report.runs import measuring, training
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
