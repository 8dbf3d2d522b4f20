"""`harness check PACKAGE`: the conformance suites, run over what one distribution brings."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

from harness.axes import MODEL_AXES
from harness.errors import ConfigError, MissingExtraError, PluginError, UnknownNameError
from harness.registry import index as registry_index

OWN = Path(__file__).parents[1] / "conformance"
PACKAGE, ONLY = "--package", "--only"
"""Options that the suites' conftest takes."""
TOGETHER = {"pairs": MODEL_AXES, "long_decoding": ("attention", "position")}
"""Suites of methods that meet in one model, and the axes whose methods they try."""


def main(arguments: Sequence[str]) -> int:
    """Run the suites of every axis the distribution has methods on, and of its stages; 0 if all hold."""
    parser = argparse.ArgumentParser(
        prog="harness check",
        usage="harness check [-h] [--only NAME] PACKAGE [-- ARGUMENTS OF PYTEST]",
        description="Run the conformance suites over the methods and stages of an installed distribution.",
    )
    parser.add_argument("package", help="distribution name as in `harness list`, e.g. harness-topk")
    parser.add_argument(
        ONLY,
        action="append",
        default=[],
        metavar="NAME",
        help="a part of it, e.g. attention=topk, attention, stage=prune; may be given again",
    )
    own, further = _split(arguments)
    asked = parser.parse_args(own)
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
    methods, stages = _chosen(asked, methods, stages)
    brought = [title for method in methods if (title := _title(method))]
    print(f"{asked.package}: " + ", ".join(brought + [f"stage {name}" for name in stages]), flush=True)
    suites, without = _suites(index, {method["axis"] for method in methods}, set(stages))
    if without:
        print(f"no suite: {', '.join(without)}; ship test_<axis>.py through harness_suites", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command += ["--noconftest", "-p", "harness.conformance.conftest"]  # for suites outside its folder too
    command += ["--rootdir", str(OWN), "-c", "/dev/null", PACKAGE, asked.package]
    command += ["-m", "not slow"]  # of pairs in a model those that share a state; a later -m asks for others
    command += [f"{ONLY}={name}" for name in asked.only]
    return subprocess.call([*command, *further, *map(str, suites)])


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Its own arguments, and those of pytest behind `--`.

    Raises: ConfigError where pytest would read `axis=name` as an expression
    """
    given = list(arguments)
    at = given.index("--") if "--" in given else len(given)
    own, further = given[:at], given[at + 1 :]
    for flag, expression in pairwise([*further, ""]):
        if flag == "-k" and "=" in expression:
            raise ConfigError(
                f"-k {expression}: pytest takes words there, and no '='; use {ONLY} {expression}"
            )
    return own, further


def _chosen(
    asked: argparse.Namespace, methods: list[dict[str, Any]], stages: list[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """What of a distribution is asked for; all of it unless it is named.

    Raises: UnknownNameError where it has nothing of a name
    """
    axes = {method["axis"] for method in methods}
    known = {*axes, *filter(None, map(_title, methods)), *(f"stage={name}" for name in stages)}
    only = set(asked.only)
    for name in only - known:
        raise UnknownNameError(what=f"method, axis or stage of {asked.package}", name=name, known=known)
    if not only:
        return methods, stages
    return (
        [method for method in methods if method["axis"] in only or _title(method) in only],
        [name for name in stages if f"stage={name}" in only],
    )


def _title(method: dict[str, Any]) -> str:
    """`axis=name`; empty for the absence of a method, which owes nothing."""
    return "" if method["name"] == "none" else f"{method['axis']}={method['name']}"


def _suites(index: dict[str, Any], axes: set[str], stages: set[str]) -> tuple[list[Path], list[str]]:
    """The suites of every method and every stage, those of methods that meet in a model, and those of single
    axes and stages; axes without any.
    """
    folders = [OWN, *map(Path, index["suites"])]
    found = [OWN / "test_methods.py"] if axes else []
    found += [OWN / "test_stages.py"] if stages else []
    found += [OWN / f"test_{suite}.py" for suite, of in TOGETHER.items() if axes & {*of}]
    without = []
    for name in sorted(axes | stages):
        files = [folder / f"test_{name}.py" for folder in folders if (folder / f"test_{name}.py").is_file()]
        found += files
        without += [] if files or name in stages else [name]
    return found, without
