"""Records by the names that a reader has: a cell of a sweep, a folder, or a cell of a committed report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.data.lineage import rows
from harness.errors import AbsentError, StoreError
from harness.plan.manifest import find_record
from harness.report.compact import RECORDS, read_compact
from harness.report.record import Record, label
from harness.store import Store


def find(root: Path, name: str) -> dict[str, Any]:
    """A record by its path, by `<sweep>/<cell>`, by the beginning of its cell's id, or as a committed one by
    `<report or records.json.gz>/<cell>`.

    Raises: AbsentError where none or several answer; DataError where a file holds no records
    """
    file, cell = committed(name)
    if file is None:
        return find_record(root, name)[1]
    everything = read_compact(file)
    found = [record for record in everything if record.cell.startswith(cell)]
    if len(found) != 1:
        number = len(everything)
        why = f"{len(found)} of its {number} cells answer" if cell else f"it holds {number} cells"
        shown = "; ".join(line(record) for record in (found or everything)[:6])
        raise AbsentError(f"{name} is no single record: {why}. Give {file}/<cell>, e.g. of {shown}")
    return dict(found[0].data)


def committed(name: str) -> tuple[Path | None, str]:
    """The file of records that a name leads to, and the start of a cell's id; (None, "") where to none."""
    path = Path(name)
    for place, cell in ((path, ""), (path.parent, path.name)):
        file = place / RECORDS if place.is_dir() else place
        if file.is_file() and file.name.endswith((".json.gz", RECORDS.removesuffix(".gz"))):
            return file, cell
    return None, ""


def line(record: Record) -> str:
    """`0a1b2c3d (bits = 4, seed 1)`."""
    return f"{record.cell[:8]} ({record.where})"


def show(root: Path, name: str, *, as_json: bool) -> str:
    """A record as text or JSON; of a whole file of records, one line a cell.

    Raises: StoreError, DataError
    """
    file, cell = committed(name)
    if file is not None and not cell:
        found = read_compact(file)
        return json.dumps([r.data for r in found], indent=1) if as_json else "\n".join(map(line, found))
    record = find(root, name)
    return json.dumps(record, indent=1) if as_json else page(record)


def lineage(root: Path, name: str, *, as_json: bool) -> Iterator[str]:
    """Of every stage of a record that drops or rewrites documents, a line for each of them.

    Raises: StoreError where no record answers, or its artifacts are not in the store
    """
    store, record, found = Store(root), find(root, name), 0
    for stage in record.get("stages", ()):
        for row in rows(store.path(stage["key"])):
            found += 1
            yield json.dumps({"stage": stage["stage"], **row}, ensure_ascii=False) if as_json else _told(row)
    if not found:
        raise StoreError(
            f"{name}: no document was dropped or rewritten, or the artifacts that say so are not in {root}"
        )


def _told(row: Mapping[str, Any]) -> str:
    where = ", ".join(row[key] for key in ("domain", "split") if row.get(key))
    return f"{row['id']}{where and f' ({where})'} {row['did']} by {row['by']}" + (
        f": {row['why']}" if row["why"] else ""
    )


def page(record: Mapping[str, Any]) -> str:
    """What a record holds, for people: outcome, stages, numbers, and where they come from."""
    source, levels = record.get("provenance") or {}, record["levels"].items()
    git = source.get("git") or {}
    state = f"{git.get('commit', '')[:12]}{', with changes' if git.get('dirty') else ''}"
    outcome = ": ".join(
        str(record["outcome"][word]) for word in ("status", "reason") if record["outcome"][word]
    )
    lines = [
        f"{record.get('sweep', '')}/{record['cell']}   {outcome}",
        ", ".join([*(f"{factor} = {label(level)}" for factor, level in levels), f"seed {record['seed']}"]),
        f"harness {source.get('harness', '')} {state}".rstrip() + f"; {source.get('finished', '')}",
        "",
        "stages:",
    ]
    for stage in record.get("stages", ()):
        seconds = f"{stage['seconds']:.1f} s" if stage.get("seconds") is not None else "not made"
        threads = f", threads {stage['threads']}" if stage.get("threads") else ""
        lines.append(
            f"  {stage['stage']} {stage['part']}".rstrip() + f"   {stage['key'][:12]}   {seconds}{threads}"
        )
    lines += ["", "metrics:"]
    for metric in record["metrics"]:
        name = f"{metric['evaluator']}.{metric['task']}.{metric['metric']}"
        error = f" +- {metric['stderr']:.4g}" if metric.get("stderr") is not None else ""
        lines.append(f"  {name} = {metric['value']}{error} {metric.get('unit') or ''}".rstrip())
    return "\n".join(lines)
