"""`harness new AXIS NAME` or `stage NAME`: a file and its test to start from, here or in a package."""

from __future__ import annotations

import argparse
import keyword
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from harness.commands import scaffold, scaffold_stage
from harness.commands.list import STAGE
from harness.errors import ConfigError, HarnessError
from harness.forms import misfit
from harness.registry.checks import check_key, check_name
from harness.registry.known import registry
from harness.registry.modules import GROUP

_Project = TypedDict("_Project", {"name": str, "entry-points": NotRequired[dict[str, dict[str, str]]]})
"""What is read of a project's metadata."""


def main(arguments: Sequence[str]) -> int:
    """Write the files and say what to do next; never overwrites."""
    parser = argparse.ArgumentParser(
        prog="harness new",
        description="Write a method or stage and its test, into this checkout or a package of your own. "
        "It works as it is written: change it, with `harness check` beside.",
    )
    parser.add_argument("axis", help="as in `harness list`, e.g. attention, evaluator, tracker; or stage")
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
    known, stage = registry(), asked.axis == STAGE
    taken = {} if stage else known.methods(asked.axis)
    check_name(asked.name, "the name")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", asked.name) or keyword.iskeyword(asked.name):
        example = "stage name; use snake_case, e.g. my_step" if stage else ""
        example = example or f"method name; use snake_case, e.g. my_{asked.axis}"
        raise ConfigError(f"'{asked.name}' is no {example}")
    if asked.name in taken:
        source = known.source(taken[asked.name])
        raise ConfigError(f"{asked.axis}={asked.name} exists already, in {source}; choose another name")
    if not stage:
        return
    check_key(asked.name, "the name")
    if asked.name in known.stages:
        source = known.stage_source(asked.name)
        raise ConfigError(f"the stage {asked.name} exists already, in {source}; choose another name")
    if asked.name in known.axes:
        raise ConfigError(f"'{asked.name}' is an axis, whose config key a stage would take; use another name")
    if asked.like:
        raise ConfigError("--like begins with a method; a stage begins as a small one of its own")


def _checkout(asked: argparse.Namespace) -> dict[Path, str]:
    plugins = Path("plugins/harness_plugins")
    if not plugins.is_dir():
        raise HarnessError(
            "this is no checkout of harness (no plugins/harness_plugins here); "
            f"use `harness new {asked.axis} {asked.name} --package harness-{asked.name.replace('_', '-')}`"
        )
    if asked.axis == STAGE:
        return {
            Path("harness/stages") / f"{asked.name}.py": scaffold_stage.stage(asked.name),
            Path("tests/stages") / f"test_{asked.name}.py": scaffold_stage.test(asked.name),
        }
    written = scaffold.method(asked.axis, asked.name, like=asked.like, package=False)
    files = {plugins / asked.axis / name: content for name, content in written.items()}
    test = scaffold.test(asked.axis, asked.name)
    return {**files, Path("tests/plugins") / asked.axis / f"test_{asked.name}.py": test}


def _package(asked: argparse.Namespace) -> dict[Path, str]:
    """The files of a package, or those that add a method or a stage to one that is there."""
    root = Path(asked.package)
    there = (root / "pyproject.toml").is_file()
    name = root.absolute().resolve().name
    module = re.sub(r"[^a-z0-9]+", "_", name.lower())
    folder = _folder(root) if there else root / module
    if asked.axis == STAGE:
        written = {f"{asked.name}.py": scaffold_stage.stage(asked.name)}
        test = scaffold_stage.test(asked.name)
    else:
        written = scaffold.method(asked.axis, asked.name, like=asked.like, package=True)
        edited = any(
            path.exists() and not _holds(path, written[path.name]) for path in _helpers(folder, written)
        )
        written = scaffold.with_own_helpers(written, asked.name) if edited else written
        test = scaffold.test(asked.axis, asked.name)
    files = {folder / name: content for name, content in written.items()}
    files[root / "tests" / f"test_{asked.name}.py"] = test
    if there:
        return files
    about = (
        {}
        if (root / "README.md").exists()
        else {root / "README.md": scaffold.readme(name, asked.axis, asked.name)}
    )
    return {
        root / "pyproject.toml": scaffold.project(name, module, asked.axis, asked.name),
        **about,
        folder / "__init__.py": f'"""Methods of {name} for harness."""\n',
        **files,
    }


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


def _next_steps(asked: argparse.Namespace) -> str:
    install = f"pip install -e {asked.package}\n" if asked.package else ""
    package = _project(Path(asked.package))["name"] if asked.package else "harness-lm"
    look = f"harness show {asked.axis} {asked.name}\n"
    docs = "" if asked.package or asked.axis != STAGE else "python -m harness.commands.docs\n"
    return f"{install}{docs}{look}harness check {package} -- -k {asked.name}"
