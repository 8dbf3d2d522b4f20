"""The API beside the command line: what is written, how names resolve, what a plan's frame holds."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import harness
from harness.api.arguments import written
from harness.errors import ConfigError, HarnessError
from harness.plan.make import make_plan
from harness.store import Store

ORDERS = (
    "import harness, harness.plan.make, harness.run.worker; from harness import plan, run",
    "from harness import plan, run; import harness.plan.make, harness.run.worker",
    "import harness; plan, run = harness.plan, harness.run; import harness.plan.make",
    "import harness.plan.make, harness.run, harness.report, harness.compose; from harness.plan import make; "
    "plan, run = harness.plan, harness.run",
)


@pytest.mark.parametrize("order", ORDERS)
def test_a_subpackage_is_called_like_its_function_in_any_order_of_import(order: str) -> None:
    code = (
        f"{order}\nimport inspect, harness, harness.plan.make\n"
        "assert plan is harness.plan and run is harness.run\n"
        "assert callable(harness.plan.make.make_plan)\n"
        "assert 'rows' in inspect.signature(plan).parameters\n"
        "assert harness.compose(['attention=multi_query']).choice('attention').method.name == 'multi_query'\n"
        "try: run('attention=gqq')\n"
        "except harness.ConfigError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("No attention method is called 'gqq'")


def test_three_spellings_are_one_command_line() -> None:
    expected = ["attention=full,flash", "seed=0", "evaluator=[perplexity]", "device=null"]
    assert written(expected) == expected
    assert written("attention=full,flash seed=0 'evaluator=[perplexity]' device=null") == expected
    named = {"attention": ("full", "flash"), "seed": 0, "evaluator": ["perplexity"], "device": None}
    assert written(named) == expected
    assert written({"attention": "full,flash"}) == ["attention=full,flash"]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["hydra.sweeper.workers=2"], "here options of a run are arguments"),
        (["hydra/launcher=joblib"], "for launchers too"),
        (["-m", "seed=0,1"], "-m is for the command line"),
        (3, r"overrides=3 is int; write 'key=value'"),
        ([3], r"overrides\[0\]=3 is no text"),
        (["attention=gqq"], "No attention method is called 'gqq'"),
        ({"attention": ["full", "flash"]}, "attention takes one method"),
        ({"attention.window": 3}, "No option of attention=full is called 'window'"),
    ],
)
def test_a_mistake_is_an_error_of_harness(wrong: object, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        harness.plan(wrong, store=tmp_path)
    assert issubclass(ConfigError, HarnessError)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (3, "int names no experiment; give its name"),
        (None, "NoneType names no experiment"),
        (pd.Series({"sweep": "demo", "cell": "0123"}), "Series names no experiment"),
        (pd.DataFrame({"cell": ["0123"]}), "this frame is of 0 sweeps"),
    ],
)
def test_what_names_no_experiment_is_refused(wrong: Any, said: str, tmp_path: Path) -> None:
    for function in (harness.records, harness.report):
        with pytest.raises(ConfigError, match=said):
            function(wrong, store=tmp_path)


def test_a_report_needs_the_cells_of_its_frame(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="this frame has no column 'cell'"):
        harness.report(pd.DataFrame({"sweep": ["demo"]}), store=tmp_path)


def test_a_sweep_of_nothing_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"harness\.sweep compares something"):
        harness.sweep([], store=tmp_path / "store")
    with pytest.raises(ConfigError, match="one value of attention"):
        harness.run("attention=full,flash", store=tmp_path / "store")
    with pytest.raises(ConfigError, match="workers=-1 must be positive"):
        harness.sweep("attention=full,flash", workers=-1, store=tmp_path / "store")
    assert not (tmp_path / "store" / "artifacts").exists()


def test_a_plan_says_what_the_command_line_says(tmp_path: Path) -> None:
    asked = ["attention=full,multi_query", "seed=0,1", "scale=smoke"]
    frame = harness.plan(asked, store=tmp_path)
    stages = harness.plan(asked, rows="stages", store=tmp_path)
    made = make_plan(asked, store=Store(tmp_path))
    assert list(frame["cell"]) == [cell.cell.id for cell in made.cells]
    assert list(zip(frame["attention"], frame["seed"], strict=True)) == [
        (cell.levels["attention"], cell.seed) for cell in made.cells
    ]
    assert frame.attrs["summary"] == made.summary()
    assert set(stages["key"]) == set(made.wanted())
    assert len(stages) == len(made.missing()) == (~stages["stored"]).sum()
    # Summed over cells, a stage counts once for each cell that shares it.
    assert (stages["flops"].fillna(0) * stages["cells"]).sum() == pytest.approx(frame["flops"].sum())
    assert frame["to_run"].sum() == stages["cells"].sum()
    assert "<table" in frame._repr_html_()


def test_a_cell_that_cannot_work_says_why(tmp_path: Path) -> None:
    frame = harness.plan("position=rope,learned context=none,yarn scale=smoke", store=tmp_path)
    refused = frame[frame["refused"] != ""]
    assert 0 < len(refused) < len(frame)
    assert refused["refused"].str.len().min() > 10
    assert (refused["to_run"] == 0).all()


@pytest.mark.parametrize(
    "name", ["compose", "plan", "run", "sweep", "records", "report", "load_model", "load_samples"]
)
def test_every_function_is_documented_and_typed(name: str) -> None:
    function = inspect.unwrap(getattr(harness, name))
    assert "Raises:" in inspect.getdoc(function)
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    assert all(p.annotation is not inspect.Parameter.empty for p in signature.parameters.values())
