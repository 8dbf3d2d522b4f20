"""`harness list`: every installed method and stage, from the index."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from harness.commands.output import answer
from harness.errors import UnknownNameError
from harness.registry import index as registry_index

STAGE = "stage"
"""In the place of an axis: stages are asked for."""
KEYS = ("axis", "name", "package", "version", "summary", "paper")


def main(arguments: Sequence[str]) -> int:
    """Print the methods by axis and the stages, or as JSON."""
    parser = argparse.ArgumentParser(
        prog="harness list", description="List every installed method, and the stages."
    )
    parser.add_argument("axis", nargs="?", help="only this axis; or stage, for the stages alone")
    parser.add_argument("--json", action="store_true", help="a list of {axis, name, package, version, ...}")
    asked = parser.parse_args(list(arguments))
    index = registry_index.read()
    if asked.axis == STAGE:
        found = list(index["stages"].values())
        answer(json.dumps(found, indent=1) if asked.json else stage_table(index))
        return 0
    if asked.axis is not None and asked.axis not in index["axes"]:
        raise UnknownNameError(what="axis", name=asked.axis, known=[*index["axes"], STAGE])
    found = rows(index, asked.axis)
    if asked.json:
        answer(json.dumps(found, indent=1))
    else:
        print(table(index, found) + ("" if asked.axis else f"\n{stage_table(index)}"))
    return 0


def rows(index: dict[str, Any], axis: str | None = None) -> list[dict[str, str]]:
    """One row a method; what does not load follows, with the reason as its status."""
    found = [
        {**{key: method[key] for key in KEYS}, "status": registry_index.status(method)}
        for method in index["methods"]
        if axis in (None, method["axis"])
    ]
    broken = [
        {
            "axis": "",
            "name": item["module"],
            "package": item["package"],
            "version": item["version"],
            "summary": "",
            "paper": "",
            "status": f"does not load: {item['cause']}",
        }
        for item in index["quarantined"]
    ]
    return found + broken


def table(index: dict[str, Any], found: Sequence[dict[str, str]]) -> str:
    """The methods under their axes, as text."""
    lines = []
    for axis, about in index["axes"].items():
        own = [row for row in found if row["axis"] == axis]
        if own:
            lines.append(f"{axis}: {about['summary']}")
        lines += [_line(row, row["status"]) for row in own]
    for row in found:
        if not row["axis"]:
            lines.append(f"! {row['name']} ({row['package']} {row['version']}) {row['status']}")
    return "\n".join(lines)


def stage_table(index: dict[str, Any]) -> str:
    """The stages in the default order, as text."""
    return "\n".join(["stages:", *map(_line, index["stages"].values())])


def _line(row: dict[str, Any], status: str = "ok") -> str:
    """A method or stage, with its package where that is another's."""
    notes = [] if row["package"] == "harness-lm" else [f"{row['package']} {row['version']}"]
    notes += [] if status == "ok" else [status]
    suffix = f"  [{', '.join(notes)}]" if notes else ""
    return f"  {row['name']:<24} {row['summary']}{suffix}"
