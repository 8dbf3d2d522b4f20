"""Records in the order of their factors: one for each configuration and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import DataError
from harness.report.copies import one_a_place
from harness.report.frames import Levels, Results
from harness.report.record import Record, label
from harness.stated import levels_of


def factor_levels(factors: Mapping[str, Any]) -> dict[str, list[str]]:
    """Factor -> labels of its levels, from an experiment's `factors:`; one without settings is none."""
    return {str(name): [label(level) for level, _ in levels_of(name, spec)] for name, spec in factors.items()}


def arrange(records: Sequence[Record]) -> Results:
    """Records by configuration and seed.

    Raises: DataError if there are no records
    """
    if not records:
        raise DataError("There are no records to arrange; run the sweep first")
    newest = records[-1]
    factors = factor_levels(newest.experiment.get("factors") or {})
    for record in records:
        for factor, level in record.levels.items():
            known = factors.setdefault(factor, [])
            if level not in known:
                known.append(level)
    shown, notes = one_a_place(records)
    arranged: dict[Levels, dict[int, Record]] = {}
    for record in shown:
        levels = tuple(record.levels.get(f, "unset") for f in factors)
        arranged.setdefault(levels, {})[record.seed] = record
    for factor, levels_of_factor in factors.items():
        place = list(factors).index(factor)
        if any(levels[place] == "unset" for levels in arranged) and "unset" not in levels_of_factor:
            levels_of_factor.append("unset")
    order = {f: {level: i for i, level in enumerate(v)} for f, v in factors.items()}
    ordered = sorted(arranged, key=lambda levels: [order[f][v] for f, v in zip(factors, levels, strict=True)])
    baseline = {str(k): label(v) for k, v in (newest.experiment.get("baseline") or {}).items()}
    return Results(
        name=str(newest.experiment.get("name") or newest.data.get("sweep")),
        factors=factors,
        baseline={f: v for f, v in baseline.items() if v in factors.get(f, [])},
        seeds=sorted({r.seed for r in records}),
        records={levels: dict(sorted(arranged[levels].items())) for levels in ordered},
        notes=notes,
    )
