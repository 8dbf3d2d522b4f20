"""`harness.compose` and `harness.plan`: what would run, and what it costs; nothing is spent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.api.arguments import Overrides, opened, written
from harness.compose import Cell
from harness.compose.hydra import compose as compose_cell
from harness.errors import UnknownNameError
from harness.plan.costs import Costs
from harness.plan.estimate import Cost
from harness.plan.plan import Plan, PlannedCell
from harness.report.frames import column_of
from harness.report.measurements import COLUMNS

if TYPE_CHECKING:
    import pandas as pd

    from harness.store import Store

ROWS = ("cells", "stages")
OWN = ("stages", "to_run", "flops", "memory", "disk", "seconds", "at_most", "refused", "notes")
"""Columns of a plan's cells that measurements lack; a factor called so has `factor.` before it."""


def compose(overrides: Overrides = ()) -> Cell:
    """The typed cell of overrides: `cell.config` is the whole resolved config, `cell.id` its hash.

    Raises: ConfigError or PluginError that says where, what is wrong and what would work
    """
    return compose_cell(written(overrides))


def plan(
    overrides: Overrides = (),
    *,
    rows: Literal["cells", "stages"] = "cells",
    probe: bool = False,
    store: Store | Path | str | None = None,
) -> pd.DataFrame:
    """What `harness plan` shows, as a frame: one row a cell, or a stage with `rows="stages"`.

    Cells have their id, levels and seed, numbers of stages asked for and to run, why they cannot run
    (`refused`), and costs of what is to run. Stages that cells share count in each of them; by stage each
    stands once, so that a column can be summed. `probe` times a few steps of each training's model.
    `frame.attrs` holds the sweep's name, a summary and notes. Of a tuned sweep whose trials are open, the
    trials.
    Units: flops in floating-point operations, memory (the peak of a stage) and disk in bytes, seconds of one
    device; NaN where nothing is known yet. `at_most` marks bounds
    Raises: ConfigError, UnknownNameError or PluginError, naming what is wrong and what works
    """
    import pandas as pd

    from harness.plan.make import make_plan
    from harness.report.intended import check_layout
    from harness.run.machine import available_memory

    if rows not in ROWS:
        raise UnknownNameError(what="row of a plan", name=rows, known=ROWS)
    made = make_plan(written(overrides), store=opened(store))
    check_layout(made)
    made = made.first
    costs = Costs(made, probe=available_memory() if probe else 0)
    found = _cells(made, costs) if rows == "cells" else _stages(made, costs)
    frame = pd.DataFrame(found)
    frame.attrs.update(sweep=made.name, summary=made.summary(), notes=list(made.notes))
    return frame


def _cells(made: Plan, costs: Costs) -> list[dict[str, Any]]:
    missing = {node.key for node in made.missing()}
    return [
        {
            "cell": cell.cell.id,
            **{column_of(name, COLUMNS + OWN): level for name, level in cell.levels.items()},
            "seed": cell.seed,
            "stages": len(cell.keys),
            "to_run": sum(key in missing for key in _rests_on(made, cell)),
            **together([costs.of(made.graph.nodes[k]) for k in _rests_on(made, cell) if k in missing]),
            "refused": cell.refused,
            "notes": "; ".join(str(problem) for problem in cell.problems if not problem.fatal),
        }
        for cell in made.cells
    ]


def _rests_on(made: Plan, cell: PlannedCell) -> list[str]:
    """Keys of a cell's stages and of all that they need; none of a cell that cannot run."""
    if cell.refused:
        return []
    return list(dict.fromkeys(k for key in cell.keys for k in (key, *made.graph.ancestors(key))))


def _stages(made: Plan, costs: Costs) -> list[dict[str, Any]]:
    nodes, missing = made.graph.nodes, {node.key for node in made.missing()}
    cells = [cell.keys for cell in made.cells if not cell.refused]
    return [
        {
            "stage": nodes[key].stage,
            "part": nodes[key].part,
            "seed": nodes[key].seed,
            "cells": sum(key in keys for keys in cells),
            "stored": key not in missing,
            **together([costs.of(nodes[key])] if key in missing else []),
            "key": key,
        }
        for key in made.wanted()
    ]


def together(found: Sequence[Cost]) -> dict[str, Any]:
    """Costs of stages one after the other: sums, and the peak of memory; NaN where nothing is known."""
    known = {
        name: [v for v in (asdict(cost)[name] for cost in found) if v is not None]
        for name in ("flops", "memory", "disk", "seconds")
    }
    unknown = float("nan") if found else 0.0
    return {
        **{n: float((max if n == "memory" else sum)(vs)) if vs else unknown for n, vs in known.items()},
        "at_most": any(cost.at_most for cost in found),
    }
