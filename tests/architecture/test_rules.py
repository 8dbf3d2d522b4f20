"""The rules of the house."""

from __future__ import annotations

import ast
import configparser
import dataclasses
import functools
import re
import subprocess
import sys
from collections.abc import Collection, Iterator
from importlib.resources import files
from pathlib import Path

import pytest
from omegaconf import OmegaConf

import harness
from harness.axes import BUILTIN
from harness.commands import docs
from harness.compose import Cell, Experiment, compose, config_dir, load
from harness.compose.describe import options
from harness.compose.schema import stage_axes
from harness.conformance.test_methods import undeclared
from harness.errors import ConfigError
from harness.paths import path_ref
from harness.plan.factors import factors, request
from harness.plan.problems import problems
from harness.registry.known import registry

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted(path.stem for path in (config_dir() / "experiment").glob("*.yaml"))
SCALES = sorted(path.stem for path in (config_dir() / "scale").glob("*.yaml"))


def test_imports_run_one_way() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout[-3000:]


def test_the_import_rules_cover_every_core_module() -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    layers = config["importlinter:contract:layers"]["layers"].replace("|", " ").split()
    covered = {name.split(".")[1] for name in layers}
    free = {"__init__", "__main__", "conf", "py"}
    found = {
        path.stem for path in (ROOT / "harness").iterdir() if not path.name.startswith((".", "__pycache__"))
    }
    assert found - covered - free - {"__pycache__", "py"} == set()


@pytest.mark.parametrize("axis", BUILTIN)
def test_every_axis_has_contract_suite_method_stage_and_default_line(axis: str) -> None:
    known = registry()
    contract = known.axes[axis]
    assert contract.__doc__, f"harness/axes/{axis}.py says nothing"
    assert (ROOT / f"harness/conformance/test_{axis}.py").is_file(), f"no conformance suite for {axis}"
    assert [name for name in known.methods(axis) if name != "none"], f"{axis} has no method"
    readers = [stage for stage in registry().stages if axis in stage_axes(stage)]
    assert readers or axis == "tracker", f"no stage reads {axis}"
    assert f"\n  - {axis}: " in (ROOT / "conf/config.yaml").read_text(), f"config.yaml does not list {axis}"


@pytest.mark.parametrize("axis", BUILTIN)
def test_every_suite_has_planted_bugs(axis: str) -> None:
    planted = (path.read_text() for path in (ROOT / "tests/conformance").glob("*_planted.py"))
    assert any(re.search(rf"\btest_{axis}\b", text) for text in planted), f"what would fail test_{axis}?"


def test_every_built_in_stage_stands_in_the_order_of_a_full_chain() -> None:
    chain = (
        "corpus decontaminate tokenizer tokens pretrain dither extend instruct reward align prune quantize"
    )
    own = [name for name, stage in registry().stages.items() if stage.__module__.startswith("harness.")]
    assert " ".join(own) == f"{chain} generate evaluate"


def test_every_option_is_read_somewhere() -> None:
    read = _read()
    configs = {method.Config for method in registry().all()} | {
        registry().stage(s).Config for s in registry().stages
    }
    unread = {
        f"{config.__module__}.{config.__qualname__}.{f.name}"
        for config in configs
        for f in dataclasses.fields(config)
        if f.name not in read
    }
    assert unread == set()


@pytest.mark.parametrize("stage", registry().stages)
def test_options_of_stages_that_name_files_are_declared(stage: str) -> None:
    assert undeclared(registry().stage(stage).Config) == []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    weights_file: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Undeclared:
    path: str = ""
    data_files: dict[str, str] = dataclasses.field(default_factory=dict)
    cache_dir: Path | None = None
    num_files: int = 1
    profile: str = "fast"
    text_path: str = path_ref()
    inner: list[Inner] = dataclasses.field(default_factory=list)


def test_an_undeclared_path_would_be_found() -> None:
    assert undeclared(Undeclared) == ["path", "data_files", "cache_dir", "inner.weights_file"]


def sentinels(doc: str) -> bool:
    """Whether a number stands for something that is no number: that is what null is for."""
    verbs = "=|is|for|means|stands for|reads|keeps|takes|sets"
    return bool(re.search(rf"(?<!\w)(?:0|-1) (?:{verbs}) (?:all|no|null)\b", doc))


def test_no_option_says_all_or_none_by_a_number() -> None:
    classes = [*registry().all(), *registry().stages.values()]
    found = {
        f"{kind.__qualname__}.{option['name']}"
        for kind in classes
        for option in options(kind.Config)
        if sentinels(option["doc"])
    }
    assert not found


def test_a_number_for_all_would_be_found() -> None:
    assert sentinels("Rows to read; 0 reads all.")
    assert sentinels("Steps between checkpoints; -1 = no checkpoints.")
    assert not sentinels("Where the piece stands (0 = start, 1 = end).")


def test_an_unread_option_would_be_found() -> None:
    assert "window" in _read()
    assert "an_option_that_nobody_reads" not in _read()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_shipped_experiment_composes(experiment: str, scale: str) -> None:
    asked = [f"experiment={experiment}", f"scale={scale}"]
    try:
        cell = _first_cell(asked)
    except ConfigError as error:
        if scale == "real" and "set model.import=true" in str(error):
            return  # it asks about the shape of a transformer, and is told how to ask a pretrained one
        raise
    own = (experiment, f"{experiment}_{scale}")
    assert cell.experiment.name in own, "its own records at a scale of its own"
    assert cell.experiment.question, "an experiment states its question"
    levels = set(cell.experiment.factors)
    assert set(cell.experiment.baseline) <= levels, f"baseline names a factor that is none of {levels}"
    # At full scale, models of the hub and data sets in the folder `data`; the model of scale real is fetched.
    # One asks for a text of the user's own.
    to_be_had = ["hub", "data/", "OPENAI_API_KEY", "`harness fetch ", "is empty; give an existing file"]
    if scale == "real":  # it trains no tokenizer and pretrains no model, as it says
        to_be_had += [
            "no stage reads it; add one of ['tokenizer']",
            "no stage reads it; add one of ['pretrain']",
        ]
    assert [p for p in problems(cell) if p.fatal and not any(word in p.message for word in to_be_had)] == []


def _first_cell(arguments: list[str]) -> Cell:
    """The first levels of an experiment, composed: a scale may bring the model as a level."""
    node, _ = load(arguments)
    found = factors(Experiment(factors=OmegaConf.to_container(node.factors)), request(arguments))
    return compose([*arguments, *(text for factor in found for text in factor.levels[0].overrides)])


def test_generated_files_are_up_to_date() -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, made in docs.generated().items()
        if not path.is_file() or path.read_text(encoding="utf-8") != made
    ]
    assert [*stale, *docs.left_over()] == [], "run `python -m harness.commands.docs`"


def test_the_readme_shows_a_report_s_numbers() -> None:
    shown = (ROOT / "README.md").read_text(encoding="utf-8")
    assert shown == docs.readme(), "run `python -m harness.commands.docs`"


def test_the_public_surface_exists() -> None:
    for name in harness.__all__:
        assert getattr(harness, name) is not None


def test_importing_harness_imports_nothing_heavy() -> None:
    code = (
        "import sys, harness, harness.cli, harness.registry.index; "
        "print(sorted(set(sys.modules) & {'torch', 'hydra'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_registry_loads_without_the_heavy_libraries() -> None:
    code = (
        "import sys; from harness.compose import compose; from harness.plan.problems import problems; "
        "problems(compose()); print(sorted(set(sys.modules) & "
        "{'transformers', 'peft', 'lm_eval', 'wandb', 'datasets', 'matplotlib', 'statsmodels'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_conf_folder_is_found_in_a_checkout_and_in_a_wheel() -> None:
    assert (config_dir() / "config.yaml").is_file()
    text = (ROOT / "pyproject.toml").read_text()
    assert 'conf = "harness/conf"' in text
    assert files("harness").joinpath("py.typed").is_file()


def imported(path: Path, modules: Collection[str]) -> set[str]:
    """Modules of the core that a file imports, within functions too; for type checkers alone left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    guards = [n for n in ast.walk(tree) if isinstance(n, ast.If) and "TYPE_CHECKING" in ast.unparse(n.test)]
    unseen = {id(inner) for guard in guards for inner in ast.walk(guard)}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and id(node) not in unseen:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Import) and id(node) not in unseen:
            found |= {alias.name for alias in node.names}
    return found & set(modules)


def test_no_files_import_each_other_in_a_circle() -> None:
    """Not through a function's own imports either; folders are named only as what they hold."""
    files = [path for path in (ROOT / "harness").rglob("*.py") if path.name != "__init__.py"]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    left = {name: imported(path, modules) - {name} for name, path in modules.items()}
    while free := [name for name, needed in left.items() if not needed & set(left)]:
        for name in free:
            del left[name]
    assert left == {}, "these import each other in a circle, or import such"


def test_files_of_the_core_hold_one_idea() -> None:
    """Most are under 300 lines; what needs more than 400 has not been parted yet."""
    for path in (ROOT / "harness").rglob("*.py"):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines <= 400, (
            f"{path} has {lines} lines: part it by idea, and let the files' names say the ideas"
        )


def test_a_suite_says_what_is_wrong() -> None:
    """Every check of the suites has words for whoever wrote the method; narrowing a type needs none."""
    for path in (ROOT / "harness/conformance").glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Assert) and node.msg is None:
                check = ast.unparse(node.test)
                narrows = check.startswith("isinstance(") or check.endswith(" is not None")
                assert narrows, f"{path.name}:{node.lineno}: `assert {check}` does not say what is wrong"


@pytest.mark.parametrize("axis", BUILTIN)
def test_every_suite_is_trusted_by_a_planted_bug(axis: str) -> None:
    suite = re.compile(rf"\btest_{axis}\b")
    planted = (ROOT / "tests/conformance").glob("*_planted.py")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in planted]
    imports = [ast.unparse(node) for tree in trees for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert any(map(suite.search, imports)), f"no planted bug tries test_{axis}.py"


def test_method_files_are_ascii_and_short() -> None:
    for path in (ROOT / "plugins/harness_plugins").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert text.isascii(), f"{path} is not ASCII"
        assert len(text.splitlines()) <= 300, (
            f"{path} holds more than one idea: {len(text.splitlines())} lines"
        )


def test_no_folder_of_plugins_looks_like_a_library_that_others_ask_for() -> None:
    """peft takes LoRA's layers to be gptqmodel's as soon as a folder of that name is importable."""
    folders = {path.name for path in (ROOT / "plugins").iterdir() if path.is_dir()}
    assert folders & {"gptqmodel", "awq", "aqlm", "eetq", "hqq", "torchao", "bitsandbytes"} == set()


def test_an_unknown_experiment_is_refused() -> None:
    with pytest.raises(ConfigError, match="No experiment is called"):
        compose(["experiment=there_is_none"])


@functools.cache
def _read() -> set[str]:
    return {name for path in _sources() for name in _attributes(path)}


def _sources() -> Iterator[Path]:
    for folder in ("harness", "plugins/harness_plugins"):
        yield from (path for path in (ROOT / folder).rglob("*.py") if "conformance" not in path.parts)


def _attributes(path: Path) -> Iterator[str]:
    """Names read off any object, and strings handed to getattr or used as keys of options."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "getattr":
            yield from (
                a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)
            )
