"""`harness check PACKAGE`: the conformance suites, run over the methods of one distribution."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from harness import registry_index
from harness.errors import MissingExtraError, PluginError, UnknownNameError


def main(arguments: Sequence[str]) -> int:
    """Run the suites of every axis the distribution has methods on; 0 if all hold."""
    parser = argparse.ArgumentParser(
        prog="harness check",
        description="Run the conformance suites over the methods of an installed distribution.",
    )
    parser.add_argument("package", help="distribution name as in `harness list`, e.g. harness-topk")
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest, after --")
    asked = parser.parse_args(list(arguments))
    index = registry_index.read()
    for broken in index["quarantined"]:
        if broken["package"] == asked.package:
            raise PluginError(broken["message"])
    own = [method for method in index["methods"] if method["package"] == asked.package]
    if not own:
        packages = {method["package"] for method in index["methods"]}
        raise UnknownNameError(what="distribution with methods", name=asked.package, known=packages)
    if find_spec("pytest") is None:
        raise MissingExtraError(package="pytest", extra="check", needed_by="harness check")
    print(
        f"{asked.package}: " + ", ".join(f"{method['axis']}={method['name']}" for method in own), flush=True
    )
    suites = [suite for suite in _suites({method["axis"] for method in own}) if suite.is_file()]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command += ["--rootdir", str(suites[0].parent), "-c", "/dev/null", "--package", asked.package]
    return subprocess.call([*command, *asked.pytest, *map(str, suites)])


def _suites(axes: set[str]) -> list[Path]:
    """The suite of every method, and those of the given axes."""
    folder = Path(__file__).parents[1] / "conformance"
    return [folder / "test_methods.py", *(folder / f"test_{axis}.py" for axis in sorted(axes))]
