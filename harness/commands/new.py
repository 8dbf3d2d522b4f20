"""`harness new AXIS NAME` (or `stage`, `axis`, `layout`): files to start from, here or in a package."""

from __future__ import annotations

import argparse
import keyword
import re
import tomllib
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from harness.commands import scaffold, scaffold_axis, scaffold_layout, scaffold_stage
from harness.commands.list import STAGE
from harness.errors import ConfigError, HarnessError
from harness.forms import misfit
from harness.registry.checks import check_key, check_name
from harness.registry.known import registry
from harness.registry.modules import GROUP
from harness.report.layout import shipped

AXIS, LAYOUT = "axis", "layout"
_Project = TypedDict("_Project", {"name": str, "entry-points": NotRequired[dict[str, dict[str, str]]]})
"""What is read of a project's metadata."""


def main(arguments: Sequence[str]) -> int:
    """Write the files and say what to do next; never overwrites."""
    parser = argparse.ArgumentParser(
        prog="harness new",
        description="Write a method, a stage, an axis with the stage that reads it, or a report layout, with "
        "a test, into this checkout or a package of your own. "
        "It works as it is written: change it, with `harness check` beside.",
    )
    parser.add_argument(
        "axis", help="as in `harness list`, e.g. attention, evaluator; or stage, axis, layout"
    )
    parser.add_argument("name", help="the word on the command line, e.g. my_attention")
    parser.add_argument(
        "--package", help="a distribution of yours, e.g. harness-mine: ./NAME, made or added to"
    )
    parser.add_argument("--like", help="the built-in method to begin with (default: the axis's simplest)")
    asked = parser.parse_args(list(arguments))
    _check_free(asked)
    files = _package(asked) if asked.package else _checkout(asked)
    for path, content in files.items():
        if path.exists() and not (path.name.startswith("_") and _holds(path, content)):
            raise HarnessError(f"{path} exists; nothing was written")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)
    print(_next_steps(asked))
    return 0


def _check_free(asked: argparse.Namespace) -> None:
    """Refuse an unknown axis, and a name that is none or taken.

    Raises: ConfigError, PluginError; UnknownNameError with a suggestion
    """
    known, kind = registry(), asked.axis
    own = kind in (STAGE, AXIS, LAYOUT)
    taken = {} if own else known.methods(kind)
    check_name(asked.name, "the name")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", asked.name) or keyword.iskeyword(asked.name):
        example = {
            STAGE: "stage name; use snake_case, e.g. my_step",
            LAYOUT: "layout name; use e.g. my_table",
        }
        method = "axis name; use snake_case, e.g. my_axis"
        method = method if kind == AXIS else f"method name; use snake_case, e.g. my_{kind}"
        raise ConfigError(f"'{asked.name}' is no {example.get(kind, method)}")
    if asked.name in taken:
        source = known.source(taken[asked.name])
        raise ConfigError(f"{kind}={asked.name} exists already, in {source}; choose another name")
    if not own:
        return
    if kind == LAYOUT:
        if asked.name in shipped():
            raise ConfigError(f"the layout {asked.name} exists already, in {shipped()[asked.name]}")
        return
    check_key(asked.name, "the name")
    stage = asked.name if kind == STAGE else f"apply_{asked.name}"
    for name in {asked.name, stage} & {*known.stages}:
        raise ConfigError(
            f"the stage {name} exists already, in {known.stage_source(name)}; choose another name"
        )
    if asked.name in known.axes:
        taken_by = "an axis, whose config key a stage would take" if kind == STAGE else "an axis already"
        raise ConfigError(f"'{asked.name}' is {taken_by}; use another name")
    if asked.like:
        raise ConfigError("--like begins with a method; a stage or an axis begins as a small one of its own")


def _checkout(asked: argparse.Namespace) -> dict[Path, str]:
    plugins = Path("plugins/harness_plugins")
    if not plugins.is_dir():
        raise HarnessError(
            "this is no checkout of harness (no plugins/harness_plugins here); "
            f"use `harness new {asked.axis} {asked.name} --package harness-{asked.name.replace('_', '-')}`"
        )
    if asked.axis == AXIS:
        raise HarnessError(
            "an axis of harness itself is more than files (CONTRIBUTING.md, "
            f"Adding an axis); `harness new axis {asked.name} --package NAME` writes one into a package"
        )
    folder, tests = {
        STAGE: (Path("harness/stages"), Path("tests/stages")),
        LAYOUT: (Path(), Path()),
    }.get(asked.axis, (plugins / asked.axis, Path("tests/plugins") / asked.axis))
    return _files(asked, _written(asked, None), folder, tests)


def _package(asked: argparse.Namespace) -> dict[Path, str]:
    """The files of a package, or those that add to one that is there."""
    root = Path(asked.package)
    there = (root / "pyproject.toml").is_file()
    name = root.absolute().resolve().name
    module = re.sub(r"[^a-z0-9]+", "_", name.lower())
    folder = _folder(root) if there else root / module
    files = _files(asked, _written(asked, folder), folder, root / "tests")
    if there:
        return files
    about = {root / "README.md": scaffold.readme(name, asked.axis, asked.name, look=_look(asked))}
    return {
        root / "pyproject.toml": scaffold.project(name, module, asked.axis, asked.name),
        **({} if (root / "README.md").exists() else about),
        folder / "__init__.py": f'"""Methods of {name} for harness."""\n',
        **files,
    }


def _files(asked: argparse.Namespace, written: dict[str, str], folder: Path, tests: Path) -> dict[Path, str]:
    """What was written by its path, with a test where there is something to try."""
    files = {folder / name: content for name, content in written.items()}
    if asked.axis != LAYOUT:
        files[tests / f"test_{asked.name}.py"] = {
            STAGE: scaffold_stage.test,
            AXIS: scaffold_axis.test,
        }.get(asked.axis, partial(scaffold.test, asked.axis))(asked.name)
    return files


def _written(asked: argparse.Namespace, package: Path | None) -> dict[str, str]:
    """Texts by their path below the folder of a package, or of what stands in a checkout."""
    if asked.axis == STAGE:
        return {f"{asked.name}.py": scaffold_stage.stage(asked.name)}
    if asked.axis == AXIS:
        assert package is not None
        return scaffold_axis.files(asked.name, _dotted(package, asked))
    if asked.axis == LAYOUT:
        layout = {f"conf/report/{asked.name}.yaml": scaffold_layout.layout(asked.name)}
        if package is None or any("def harness_conf" in path.read_text() for path in package.glob("*.py")):
            return layout
        return {**layout, "conf_folder.py": scaffold_layout.hook(_dotted(package, asked))}
    written = scaffold.method(asked.axis, asked.name, like=asked.like, package=package is not None)
    helpers = [] if package is None else _helpers(package, written)
    edited = any(path.exists() and not _holds(path, written[path.name]) for path in helpers)
    return scaffold.with_own_helpers(written, asked.name) if edited else written


def _dotted(package: Path, asked: argparse.Namespace) -> str:
    """The import path of a package's folder, below its project's folder or `src` there."""
    parts = package.relative_to(asked.package).parts
    return ".".join(parts[1:] if parts[0] == "src" else parts)


def _helpers(folder: Path, written: Iterable[str]) -> list[Path]:
    """Where the private modules of a method go."""
    return [folder / name for name in written if name.startswith("_")]


def _holds(path: Path, content: str) -> bool:
    return path.read_text(encoding="utf-8") == content


def _folder(root: Path) -> Path:
    """The folder of the package that a distribution's entry point names; every module in it is found.

    Raises: ConfigError where it names none
    """
    named = _project(root).get("entry-points", {}).get(GROUP, {}).values()
    places: list[Path] = [base / name.replace(".", "/") for name in named for base in (root, root / "src")]
    found = [place for place in places if (place / "__init__.py").is_file()]
    if not found:
        raise ConfigError(
            f"{root}/pyproject.toml names no package of its folder under [project.entry-points.{GROUP}]; "
            f'add one, e.g. {root.name.replace("-", "_")} = "{root.name.replace("-", "_")}"'
        )
    return found[0]


def _project(root: Path) -> dict[str, Any]:
    """What a package's pyproject.toml says of its project.

    Raises: ConfigError where it cannot be read
    """
    with (root / "pyproject.toml").open("rb") as file:
        try:
            found = tomllib.load(file).get("project", {})
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{root}/pyproject.toml cannot be read: {error}") from error
    if wrong := misfit(found, _Project, "project"):
        raise ConfigError(f"{root}/pyproject.toml: {wrong}")
    return dict(found)


def _look(asked: argparse.Namespace) -> str:
    """The command that shows what was written."""
    shown = {AXIS: f"list {asked.name}", LAYOUT: f"report SWEEP --table {asked.name}"}
    return f"harness {shown.get(asked.axis, f'show {asked.axis} {asked.name}')}"


def _next_steps(asked: argparse.Namespace) -> str:
    install = f"pip install -e {asked.package}\n" if asked.package else ""
    package = _project(Path(asked.package))["name"] if asked.package else "harness-lm"
    docs = "" if asked.package or asked.axis != STAGE else "python -m harness.commands.docs\n"
    return f"{install}{docs}{_look(asked)}{_check(asked, package)}"


def _check(asked: argparse.Namespace, package: str) -> str:
    """The command that holds what was written to its contract; nothing does a layout."""
    if asked.axis == LAYOUT:
        return ""
    one = (
        f"{asked.name} --only stage=apply_{asked.name}"
        if asked.axis == AXIS
        else f"{asked.axis}={asked.name}"
    )
    return f"\nharness check {package} --only {one}"
