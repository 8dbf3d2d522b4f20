"""`harness show AXIS METHOD`: options, sources, needs and changes; `harness show stage STAGE`; a record."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from harness.commands.list import STAGE, rows, stage_table, table
from harness.commands.output import answer
from harness.errors import PluginError, UnknownNameError
from harness.registry import index as registry_index


def main(arguments: Sequence[str]) -> int:
    """Print one method, axis, stage or record."""
    parser = argparse.ArgumentParser(
        prog="harness show", description="Show a method or stage (options, sources, needs), or a record."
    )
    parser.add_argument(
        "axis", help="or stage; or a record: SWEEP/CELL, a folder, REPORT/records.json.gz[/CELL]"
    )
    parser.add_argument("method", nargs="?", help="without it, the axis with its methods; or a stage")
    parser.add_argument("--json", action="store_true")
    parser.add_argument(
        "--lineage",
        action="store_true",
        help="of a record: the documents that were dropped or rewritten",
    )
    asked = parser.parse_args(list(arguments))
    if "/" in asked.axis and asked.method is None:
        from harness.commands import records
        from harness.store import Store

        root = Store().root
        if asked.lineage:
            for line in records.lineage(root, asked.axis, as_json=asked.json):
                answer(line)
        else:
            answer(records.show(root, asked.axis, as_json=asked.json))
        return 0
    index = registry_index.read()
    if asked.axis == STAGE or (asked.axis in index["stages"] and asked.axis not in index["axes"]):
        name = asked.method if asked.axis == STAGE else asked.axis
        answer(_stages(index, name, as_json=asked.json))
        return 0
    if asked.axis not in index["axes"]:
        known = sorted({*index["axes"], STAGE, *index["stages"]})
        raise UnknownNameError(what="axis or stage", name=asked.axis, known=known)
    if asked.method is None:
        own = [row for row in rows(index, asked.axis) if row["axis"]]
        answer(json.dumps(own, indent=1) if asked.json else table(index, own))
        return 0
    method = find(index, asked.axis, asked.method)
    answer(
        json.dumps(method, indent=1) if asked.json else page(method, many=index["axes"][asked.axis]["many"])
    )
    return 0


def find(index: dict[str, Any], axis: str, name: str) -> dict[str, Any]:
    """A method of the index.

    Raises: UnknownNameError; PluginError where a plugin of that name does not load
    """
    known = {method["name"]: method for method in index["methods"] if method["axis"] == axis}
    if name in known:
        return known[name]  # type: ignore[no-any-return]
    for broken in index["quarantined"]:
        if name in broken["offers"]:
            raise PluginError(broken["message"])
    raise UnknownNameError(what=f"{axis} method", name=name, known=known)


def page(method: dict[str, Any], *, many: bool) -> str:
    """A method as text."""
    axis, name = method["axis"], method["name"]
    lines = [f"{axis}={name if not many else f'[{name}]'}   {method['package']} {method['version']}"]
    lines += ["", *textwrap.wrap(method["summary"], 100)]
    for label, text in method["notes"].items():
        lines += textwrap.wrap(f"{label}: {text}", 100, subsequent_indent="    ")
    for word in ("requires", "conflicts", "provides", "changes", "after"):
        if method[word]:
            lines.append(f"{word}: {', '.join(method[word])}")
    if method["extra"]:
        lines.append(f"needs: pip install '{method['package']}[{method['extra']}]'")
    prefix = f"{axis}.{name}" if many else axis
    return "\n".join([*lines, *_options(method["options"], prefix)])


def _stages(index: dict[str, Any], name: str | None, *, as_json: bool) -> str:
    """A stage, or all of them.

    Raises: UnknownNameError
    """
    if name is None:
        return json.dumps(list(index["stages"].values()), indent=1) if as_json else stage_table(index)
    if name not in index["stages"]:
        raise UnknownNameError(what="stage", name=name, known=index["stages"])
    stage = index["stages"][name]
    return json.dumps(stage, indent=1) if as_json else stage_page(stage)


def stage_page(stage: dict[str, Any]) -> str:
    """A stage as text."""
    from harness.compose.schema import stage_key

    lines = [f"stage {stage['name']}   {stage['package']} {stage['version']}", ""]
    lines += textwrap.wrap(stage["summary"], 100)
    lines.append(f"reads: {', '.join(stage['needs']) or 'nothing'}")
    if stage["may_need"]:
        lines.append(f"reads where there is one: {', '.join(stage['may_need'])}")
    lines.append(f"makes: {stage['produces']}")
    lines += textwrap.wrap(f"axes: {', '.join(stage['axes']) or 'none'}", 100, subsequent_indent="    ")
    return "\n".join([*lines, *_options(stage["options"], stage_key(stage["name"]))])


def _options(found: Sequence[dict[str, Any]], prefix: str) -> list[str]:
    lines = ["", "options:" if found else "no options"]
    for option in found:
        lines.append(f"  {prefix}.{option['name']}={_text(option['default'])}   ({option['type']})")
        lines += textwrap.wrap(option["doc"], 100, initial_indent="      ", subsequent_indent="      ")
    return lines


def _text(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value)
