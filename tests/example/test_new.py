"""`harness new`: one package that grows by a method of every axis, each of which passes as it is written."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
from third_party import ROOT, harness

from harness.axes import BUILTIN
from harness.commands import scaffold
from harness.commands.new import main
from harness.errors import ConfigError, HarnessError
from harness.registry.known import registry
from harness.report.layout import load_layout

INFO = "Metadata-Version: 2.1\nName: harness-mine\nVersion: 0.1.0\n"


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """./harness-mine, with the metadata that installing it would leave."""
    monkeypatch.chdir(tmp_path)
    info = tmp_path / "harness-mine" / "harness_mine-0.1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(INFO)
    (info / "entry_points.txt").write_text("[harness]\nharness_mine = harness_mine\n")
    return tmp_path / "harness-mine"


def test_a_package_takes_a_second_method(mine: Path, tmp_path: Path) -> None:
    for axis, name in (("attention", "first"), ("attention", "second"), ("quantizer", "third")):
        assert main([axis, name, "--package", "harness-mine"]) == 0
    shown = harness(["list", "--json"], mine, cwd=tmp_path).stdout
    assert all(f'"name": "{name}"' in shown for name in ("first", "second", "third"))
    before = (mine / "pyproject.toml").read_text()
    with pytest.raises(HarnessError, match=r"second.py exists; nothing was written"):
        main(["attention", "second", "--package", "harness-mine"])
    with pytest.raises(ConfigError, match="begin with a built-in method"):
        main(["quantizer", "fourth", "--package", "harness-mine", "--like", "none"])
    assert main(["attention", "local", "--package", "harness-mine", "--like", "sliding_window"]) == 0
    assert "window: int" in (mine / "harness_mine" / "local.py").read_text()
    assert (mine / "pyproject.toml").read_text() == before
    (mine / "pyproject.toml").write_text('[project]\nname = "harness-mine"\n')
    with pytest.raises(
        ConfigError, match=r"names no package of its folder under \[project.entry-points.harness\]"
    ):
        main(["attention", "fifth", "--package", "harness-mine"])


def test_a_package_that_was_edited_meanwhile_takes_another_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Moved below src, called otherwise, its copied helper changed, and asked from inside."""
    monkeypatch.chdir(tmp_path)
    assert main(["quantizer", "first", "--package", "harness-mine", "--like", "rtn"]) == 0
    root = tmp_path / "harness-mine"
    (root / "src").mkdir()
    inside = (root / "harness_mine").rename(root / "src" / "harness_mine")
    project = (root / "pyproject.toml").read_text().replace('"harness-mine"', '"ours"')
    (root / "pyproject.toml").write_text(project)
    edited = (inside / "_grid.py").read_text() + "# ours\n"
    (inside / "_grid.py").write_text(edited)
    monkeypatch.chdir(root)
    capsys.readouterr()
    assert main(["quantizer", "second", "--package", ".", "--like", "gptq"]) == 0
    assert "harness check ours --only quantizer=second" in capsys.readouterr().out
    assert main(["norm", "third", "--package", "."]) == 0
    assert (inside / "third.py").is_file()
    assert (inside / "_grid.py").read_text() == edited
    monkeypatch.syspath_prepend(str(root / "src"))
    second = importlib.import_module("harness_mine.second")
    assert second.make_grid.__module__ == "harness_mine._second_grid"


def test_a_package_may_begin_beside_a_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/README.md").write_text("mine")
    assert main(["norm", "first", "--package", "mine"]) == 0
    assert Path("mine/README.md").read_text() == "mine"


@pytest.mark.parametrize(
    ("project", "said"),
    [
        ("[project", "cannot be read: Expected ']'"),
        ("[project]\nname = 3\n", "project.name is an integer"),
        ("[project]\nversion = '1'\n", "project lacks name"),
        ("[project]\nname = 'a'\nentry-points = 3\n", "project.entry-points is an integer"),
    ],
)
def test_a_project_that_cannot_be_read_is_named(
    project: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine").mkdir()
    Path("mine/pyproject.toml").write_text(project)
    with pytest.raises(ConfigError, match=re.escape(said)):
        main(["norm", "first", "--package", "mine"])


@pytest.mark.parametrize("axis", BUILTIN)
def test_a_copied_method_reads_what_the_original_reads(axis: str) -> None:
    """Only what is the method's own takes the new name: torch's LayerNorm keeps its."""
    for name, method in registry().methods(axis).items():
        if name == "none":
            continue
        original = Path(inspect.getfile(method)).read_text(encoding="utf-8")
        copy = scaffold.method(axis, "mine", like=name, package=True)["mine.py"]
        assert _attributes(copy) == _attributes(original), name


@pytest.mark.parametrize("axis", BUILTIN)
def test_what_a_copied_method_refuses_is_told_in_its_own_name(axis: str) -> None:
    for name in registry().methods(axis):
        if name != "none":
            copy = scaffold.method(axis, "mine", like=name, package=True)["mine.py"].partition("\n")[2]
            assert not re.search(rf"\b{axis}[.=]{name}\b", copy), f"{axis}.{name} in a copy called mine"


def test_a_stage_passes_as_it_is_written(mine: Path, tmp_path: Path) -> None:
    assert main(["norm", "my_norm", "--package", "harness-mine"]) == 0
    assert main(["stage", "my_step", "--package", "harness-mine"]) == 0
    checked = harness(["check", "harness-mine"], mine, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout[-5000:] + checked.stderr
    assert "harness-mine: norm=my_norm, stage my_step" in checked.stdout
    shown = harness(["--cfg", "job", "my_step.factor=0.5"], mine, cwd=tmp_path)
    assert "factor: 0.5" in shown.stdout
    planned = harness(["plan", "my_step.factor=0.5", "quantizer=rtn", "scale=smoke"], mine, cwd=tmp_path)
    assert "my_step" in planned.stdout, planned.stderr
    refused = harness(["plan", "my_step.factor=0"], mine, cwd=tmp_path)
    assert "my_step.factor=0 leaves nothing of the weights" in refused.stdout + refused.stderr


def test_a_package_may_begin_with_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["stage", "my_step", "--package", "harness-mine"]) == 0
    assert 'packages = ["harness_mine"]' in Path("harness-mine/pyproject.toml").read_text()
    assert (Path("harness-mine") / "tests" / "test_my_step.py").is_file()


@pytest.mark.parametrize("first", ["", pytest.param("norm", marks=pytest.mark.slow)], ids=["alone", "second"])
def test_an_axis_passes_as_it_is_written_with_its_stage_method_and_suite(
    first: str, mine: Path, tmp_path: Path
) -> None:
    if first:
        assert main([first, "my_norm", "--package", "harness-mine"]) == 0
    assert main(["axis", "my_axis", "--package", "harness-mine"]) == 0
    checked = harness(["check", "harness-mine", "--", "-vv"], mine, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout[-5000:] + checked.stderr
    assert "my_axis=shrink, stage apply_my_axis" in checked.stdout
    assert "::test_shape_and_number_format_stay[my_axis=shrink] PASSED" in checked.stdout
    planned = harness(["plan", "my_axis=none,shrink", "quantizer=rtn", "scale=smoke"], mine, cwd=tmp_path)
    assert "apply_my_axis" in planned.stdout, planned.stderr
    refused = harness(["plan", "my_axis=shrink", "my_axis.factor=2"], mine, cwd=tmp_path)
    assert "my_axis.factor=2.0 must lie between 0 and 1" in refused.stdout + refused.stderr


def test_the_suites_of_a_new_axis_and_stage_find_a_method_that_does_nothing(
    mine: Path, tmp_path: Path
) -> None:
    assert main(["axis", "my_axis", "--package", "harness-mine"]) == 0
    file = mine / "harness_mine" / "my_axis_shrink.py"
    file.write_text(file.read_text().replace("weight_OI * self.config.factor", "weight_OI"))
    checked = harness(["check", "harness-mine", "--", "-k", "shape or model_of"], mine, cwd=tmp_path)
    assert checked.returncode == 1
    assert "nothing changes" in checked.stdout
    assert "my_axis=shrink was asked for and changed nothing" in " ".join(checked.stdout.split())


def test_a_layout_is_found_by_its_name(mine: Path, tmp_path: Path) -> None:
    assert main(["norm", "my_norm", "--package", "harness-mine"]) == 0
    for name in ("my_table", "other_table"):
        assert main(["layout", name, "--package", "harness-mine"]) == 0
    layouts = mine / "harness_mine" / "conf" / "report"
    table = layouts / "my_table.yaml"
    table.write_text(table.read_text().replace("title: my_table", "title: What I measured"))
    records = str(ROOT / "reports" / "demo" / "records.json.gz")
    asked = ["report", "demo", "--store", records, "--table", "my_table", "--format", "md", "--out", "out"]
    made = harness(asked, mine, cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    page = (tmp_path / "out" / "README.md").read_text()
    assert "What I measured" in page
    assert "bits per byte" in page
    (layouts / "demo.yaml").write_text("title: mine")
    clash = harness(asked, mine, cwd=tmp_path)
    assert "are both the layout 'demo'; rename one" in clash.stderr


def test_a_package_may_begin_with_a_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["layout", "my_table", "--package", "harness-mine"]) == 0
    assert "harness report SWEEP --table my_table" in Path("harness-mine/README.md").read_text()
    assert "pkg://harness_mine.conf" in Path("harness-mine/harness_mine/conf_folder.py").read_text()


def test_a_new_layout_stands_in_a_checkout_and_an_axis_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plugins" / "harness_plugins").mkdir(parents=True)
    assert main(["layout", "my_table"]) == 0
    assert load_layout("conf/report/my_table.yaml").title == "my_table"
    with pytest.raises(HarnessError, match="--package NAME` writes one into a package"):
        main(["axis", "my_axis"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["axis", "quantizer"], "'quantizer' is an axis already"),
        (["axis", "quantize"], "the stage quantize exists already"),
        (["axis", "My-Axis"], "is no name"),
        (["axis", "Myaxis"], "'Myaxis' is no axis name; use snake_case, e.g. my_axis"),
        (["layout", "demo"], "the layout demo exists already, in "),
        (["layout", "Demo"], "'Demo' is no layout name; use e.g. my_table"),
        (["stage", "quantize"], "the stage quantize exists already, in harness.stages.quantize"),
        (["stage", "pruner"], "'pruner' is an axis, whose config key a stage would take"),
        (["stage", "seed"], "'seed' is a key of every config"),
        (
            ["stage", "my_stage"],
            "'my_stage' ends in _stage, as the options of a stage called like an axis do",
        ),
        (["stage", "my_step", "--like", "dither"], "--like begins with a method"),
        (["stage", "My-Stage"], "is no name"),
    ],
)
def test_a_stage_that_could_not_be_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(HarnessError, match=message):
        main([*arguments, "--package", "harness-mine"])
    assert not list(tmp_path.iterdir())


def _attributes(text: str) -> list[str]:
    return [node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)]


@pytest.mark.parametrize(
    "axes",
    [("norm", "schedule", "tracker"), pytest.param(BUILTIN, marks=pytest.mark.slow)],
    ids=["three", "all"],
)
def test_a_method_of_every_axis_passes_as_it_is_written(
    axes: tuple[str, ...], mine: Path, tmp_path: Path
) -> None:
    for axis in axes:
        assert main([axis, f"my_{axis}", "--package", "harness-mine"]) == 0
    checked = harness(["check", "harness-mine"], mine, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout[-5000:] + checked.stderr
    assert all(f"{axis}=my_{axis}" in checked.stdout for axis in axes)
