"""`harness check PACKAGE`: the conformance suites, run over what one distribution brings."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import MissingExtraError, PluginError, UnknownNameError
from harness.registry import index as registry_index

OWN = Path(__file__).parents[1] / "conformance"


def main(arguments: Sequence[str]) -> int:
    """Run the suites of every axis the distribution has methods on, and of its stages; 0 if all hold."""
    parser = argparse.ArgumentParser(
        prog="harness check",
        description="Run the conformance suites over the methods and stages of an installed distribution.",
    )
    parser.add_argument("package", help="distribution name as in `harness list`, e.g. harness-topk")
    parser.add_argument("pytest", nargs="*", help="further arguments of pytest, after --")
    asked = parser.parse_args(list(arguments))
    index = registry_index.read()
    for broken in index["quarantined"]:
        if broken["package"] == asked.package:
            raise PluginError(broken["message"])
    methods = [method for method in index["methods"] if method["package"] == asked.package]
    stages = [name for name, stage in index["stages"].items() if stage["package"] == asked.package]
    if not methods and not stages:
        packages = {found["package"] for found in (*index["methods"], *index["stages"].values())}
        raise UnknownNameError(what="distribution with methods or stages", name=asked.package, known=packages)
    if find_spec("pytest") is None:
        raise MissingExtraError(package="pytest", extra="check", needed_by="harness check")
    brought = [f"{method['axis']}={method['name']}" for method in methods if method["name"] != "none"]
    print(f"{asked.package}: " + ", ".join(brought + [f"stage {name}" for name in stages]), flush=True)
    suites, without = _suites(index, {method["axis"] for method in methods}, set(stages))
    if without:
        print(f"no suite: {', '.join(without)}; ship test_<axis>.py through harness_suites", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command += ["--noconftest", "-p", "harness.conformance.conftest"]  # for suites outside its folder too
    command += ["--rootdir", str(OWN), "-c", "/dev/null", "--package", asked.package]
    return subprocess.call([*command, *asked.pytest, *map(str, suites)])


def _suites(index: dict[str, Any], axes: set[str], stages: set[str]) -> tuple[list[Path], list[str]]:
    """The suites of every method and every stage, and those of single axes and stages; axes without any."""
    folders = [OWN, *map(Path, index["suites"])]
    found = [OWN / "test_methods.py"] if axes else []
    found += [OWN / "test_stages.py"] if stages else []
    without = []
    for name in sorted(axes | stages):
        files = [folder / f"test_{name}.py" for folder in folders if (folder / f"test_{name}.py").is_file()]
        found += files
        without += [] if files or name in stages else [name]
    return found, without
