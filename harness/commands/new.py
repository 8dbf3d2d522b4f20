"""`harness new AXIS NAME`: a method file and its test to start from, or a whole package around them."""

from __future__ import annotations

import argparse
import keyword
import re
from collections.abc import Sequence
from pathlib import Path

from harness.commands import scaffold
from harness.errors import ConfigError, HarnessError
from harness.registry import registry


def main(arguments: Sequence[str]) -> int:
    """Write the files and say what to do next; never overwrites."""
    parser = argparse.ArgumentParser(
        prog="harness new",
        description="Write a method and its test: into this checkout, or as a package of your own.",
    )
    parser.add_argument("axis", help="as in `harness list`, e.g. attention")
    parser.add_argument("name", help="the word on the command line, e.g. my_attention")
    parser.add_argument("--package", help="make a distribution of this name, e.g. harness-mine, in ./NAME")
    asked = parser.parse_args(list(arguments))
    known = registry()
    known.methods(asked.axis)  # refuses an unknown axis with a suggestion
    if not re.fullmatch(r"[a-z][a-z0-9_]*", asked.name) or keyword.iskeyword(asked.name):
        raise ConfigError(f"'{asked.name}' is no method name; use snake_case, e.g. my_{asked.axis}")
    if asked.name in known.methods(asked.axis):
        taken = known.source(known.methods(asked.axis)[asked.name])
        raise ConfigError(f"{asked.axis}={asked.name} exists already, in {taken}; choose another name")
    files = _package(asked) if asked.package else _checkout(asked)
    for path in files:
        if path.exists():
            raise HarnessError(f"{path} exists; nothing was written")
    for path, content in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        print(path)
    print(_next_steps(asked))
    return 0


def _checkout(asked: argparse.Namespace) -> dict[Path, str]:
    plugins = Path("plugins/harness_plugins")
    if not plugins.is_dir():
        raise HarnessError(
            "this is no checkout of harness (no plugins/harness_plugins here); "
            f"use `harness new {asked.axis} {asked.name} --package harness-{asked.name.replace('_', '-')}`"
        )
    method, test = scaffold.method(asked.axis, asked.name), scaffold.test(asked.axis, asked.name)
    return {
        plugins / asked.axis / f"{asked.name}.py": method,
        Path("tests/plugins") / asked.axis / f"test_{asked.name}.py": test,
    }


def _package(asked: argparse.Namespace) -> dict[Path, str]:
    module = re.sub(r"[^a-z0-9]+", "_", asked.package.lower())
    root = Path(asked.package)
    return {
        root / "pyproject.toml": scaffold.project(asked.package, module, asked.axis, asked.name),
        root / "README.md": scaffold.readme(asked.package, asked.axis, asked.name),
        root / module / "__init__.py": f'"""{asked.axis}={asked.name} for harness."""\n',
        root / module / f"{asked.name}.py": scaffold.method(asked.axis, asked.name),
        root / "tests" / f"test_{asked.name}.py": scaffold.test(asked.axis, asked.name),
    }


def _next_steps(asked: argparse.Namespace) -> str:
    install = f"pip install -e {asked.package}\n" if asked.package else ""
    package = asked.package or "harness-lm"
    return f"{install}harness show {asked.axis} {asked.name}\nharness check {package} -- -k {asked.name}"
