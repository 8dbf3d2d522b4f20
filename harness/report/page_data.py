"""What the script of the page draws: the table, its cells and its records as JSON."""

from __future__ import annotations

import itertools
import json
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from harness.report.frames import Results, metric_name
from harness.report.record import Record, flatten
from harness.report.table import Column, Table, TableCell, differs, heading, sign
from harness.report.writers import arrow, number, why_missing

HIDDEN_FACTS = ("loss_curve",)
"""Facts that a figure shows better than a list."""


def as_text(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))


def page_data(table: Table, results: Results) -> dict[str, Any]:
    """What the script draws before anything is opened."""
    records = results.all_records()
    index = {record.cell: i for i, record in enumerate(records)}
    specs = list(dict.fromkeys(c.spec for c in table.columns))
    cells: list[dict[str, Any]] = []
    rows = []
    for row, line in zip(table.rows, table.cells, strict=True):
        places = []
        for column, cell in zip(table.columns, line, strict=True):
            places.append(len(cells))
            cells.append(cell_data(cell, column, specs.index(column.spec), index))
        rows.append({"levels": list(row.values()), "cells": places})
    levels = [
        *table.rows,
        *(column.where for column in table.columns),
        *(record.levels for record in records),
    ]
    # Without levels that the experiment excludes, of which nothing can be shown or hidden.
    stand = {factor: {one.get(factor) for one in levels} for factor in results.factors}
    factors = {
        factor: [level for level in known if level in stand[factor]]
        for factor, known in results.factors.items()
    }
    names = (*factors, *itertools.chain(*factors.values()))
    return {
        "factors": factors,
        "text": {name: shown for name in names if (shown := table.layout.text(name)) != name},
        "rowFactors": list(table.rows[0]),
        "columnFactors": list(table.layout.columns),
        "group": list(table.rows[0]).index(table.layout.group) if table.layout.group in table.rows[0] else -1,
        "baseline": table.baseline,
        "metrics": [metric_data(next(c for c in table.columns if c.spec == spec), table) for spec in specs],
        "columns": [{"levels": list(c.where.values()), "metric": specs.index(c.spec)} for c in table.columns],
        "rows": rows,
        "cells": cells,
        "footnotes": table.footnotes,
        "records": [record_data(record, i) for i, record in enumerate(records)],
    }


def metric_data(column: Column, table: Table) -> dict[str, Any]:
    better = column.higher_is_better
    return {
        "name": column.info.name,
        "label": heading(column),
        "unit": column.unit,
        "scale": column.spec.scale,
        "arrow": arrow(column, table).replace(" ", "\u00a0"),
        "better": None if better is None else "higher" if better else "lower",
    }


def cell_data(cell: TableCell, column: Column, metric: int, index: Mapping[str, int]) -> dict[str, Any]:
    """One number with what hovering and opening it show; raw, and scaled by the script as the table."""
    data: dict[str, Any] = {
        "where": cell.where,
        "metric": metric,
        "verdict": cell.verdict,
        "mark": sign(cell),
        "rank": cell.rank,
        "notes": cell.notes,
        "missing": cell.missing,
        "records": [index[c] for c in cell.cells if c in index],
    }
    if (found := cell.estimate) is None or cell.measured is None:
        return {**data, "why": why_missing(cell)}
    data |= {
        "value": cell.value,
        "spread": cell.spread,
        "mean": number(found.mean),
        "low": number(found.low),
        "high": number(found.high),
        "sd": number(found.sd),
        "basis": found.basis,
        "seeds": found.num_seeds,
        "items": found.num_items,
        "bySeed": {str(seed): number(value) for seed, value in cell.measured.values.items()},
    }
    if c := cell.comparison:
        data |= {
            "paired": differs(cell, column),
            "difference": number(c.difference),
            "dlow": number(c.low),
            "dhigh": number(c.high),
            "p": number(c.p),
            "family": c.family,
            "test": c.test,
            "about": c.about,
            "detectable": number(c.detectable),
            "reason": c.reason,
        }
    return data


def record_data(record: Record, index: int) -> dict[str, Any]:
    """A record as lists show it."""
    stages = record.data.get("stages", [])
    return {
        "index": index,
        "id": record.cell,
        "levels": record.levels,
        "seed": record.seed,
        "status": record.status,
        "reason": record.reason,
        "run": sum(not s.get("reused") for s in stages),
        "seconds": round(sum(s.get("seconds") or 0 for s in stages if not s.get("reused")), 1),
        "metrics": {metric_name(m): finite(m.get("value")) for m in record.data["metrics"]},
    }


def detail_data(record: Record) -> dict[str, Any]:
    """The rest of a record, as its panel shows it."""
    source = record.data.get("provenance", {})
    facts = {
        path: compact(v)
        for path, v in flatten(record.data.get("facts", {}))
        if path.rpartition(".")[2] not in HIDDEN_FACTS
    }
    effects = {f"effect.{path}": compact(v) for path, v in flatten(record.data.get("effects", {}))}
    own = ("started", "finished", "command")
    return {
        "overrides": list(record.data.get("overrides", [])),
        "command": reproduce_command(record),
        "config": dict(record.leaves),
        "provenance": {path: str(v) for path, v in flatten(source) if path not in own},
        "started": source.get("started", ""),
        "finished": source.get("finished", ""),
        "stages": [
            [
                s["stage"] + (f" {s['part']}" if s.get("part") else ""),
                str(s.get("key", ""))[:16],
                "reused" if s.get("reused") else f"{s.get('seconds') or 0:.1f} s, seed {s.get('seed')}",
            ]
            for s in record.data.get("stages", [])
        ],
        "facts": {k: v for k, v in {**facts, **effects}.items() if v not in ({}, None)},
    }


def shared_parts(details: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The records' details, their configs as differences to the common one, equal provenance written once."""
    common = most_common([d["config"] for d in details])
    provenances: dict[str, int] = {}
    records = []
    for d in details:
        config = d["config"]
        place = provenances.setdefault(as_text(d["provenance"]), len(provenances))
        records.append(
            d
            | {
                "config": {k: v for k, v in config.items() if k not in common or common[k] != v},
                "without": [k for k in common if k not in config],
                "provenance": place,
            }
        )
    return {"config": common, "provenance": [json.loads(text) for text in provenances], "records": records}


def reproduce_command(record: Record) -> str:
    """The command that makes this cell again; its own overrides, quoted for a shell."""
    return " ".join(["harness run", *(shlex.quote(o) for o in record.data.get("overrides", []))])


def compact(value: Any) -> Any:
    """A fact short enough to read."""
    if isinstance(value, float):
        return finite(value)
    if value is None or isinstance(value, int):
        return value
    text = json.dumps(value, ensure_ascii=False, default=str)
    return value if len(text) <= 300 else text[:300] + "..."


def finite(value: Any) -> Any:
    return number(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


PLAIN = (str, int, float, bool)
"""Types of options that are compared as they are."""


def most_common(flats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For each config key that most records have, its most frequent value."""
    values: dict[str, Counter[tuple[type | None, Any]]] = {}
    for flat in flats:
        for key, value in flat.items():
            # 1, 1.0 and True are equal and are not written alike.
            plain = value is None or isinstance(value, PLAIN)
            known = (type(value), value) if plain else (None, json.dumps(value, default=str))
            values.setdefault(key, Counter())[known] += 1
    common = {}
    for key, counts in values.items():
        if 2 * sum(counts.values()) > len(flats):
            (kind, value), _ = counts.most_common(1)[0]
            common[key] = json.loads(value) if kind is None else value
    return common
