"""Cells into the graph of a plan, with what speaks against each."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from harness.compose import Cell
from harness.errors import ConfigError, DataError, IncompatibleError, PluginError, UnknownNameError
from harness.method import Problem
from harness.plan.assemble import Assembler
from harness.plan.cells import CellPlan
from harness.plan.graph import Graph
from harness.plan.need import Need
from harness.plan.plan import PlannedCell
from harness.plan.problems import problems
from harness.plan.vocabularies import foreign


def place(assembler: Assembler, graph: Graph, planned: Sequence[CellPlan]) -> dict[str, PlannedCell]:
    """Compose cells, put them into the graph, and note what speaks against them; equal ones once, by id.

    Raises: ConfigError, PluginError for what is no config at all; what merely cannot work is noted
    """
    seen: dict[str, PlannedCell] = {}
    for item in planned:
        cell = assembler.cell(item.overrides)
        if cell.id not in seen:
            keys, faults = _asks(graph, cell)
            seen[cell.id] = PlannedCell(
                cell=cell, levels=item.levels, seed=item.seed, keys=keys, problems=faults
            )
    _check(graph, seen)
    return seen


def _asks(graph: Graph, cell: Cell) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """What a cell asks for; of one that cannot be, nothing, and why."""
    if cell.faults:
        return (), cell.faults
    try:
        keys = tuple(graph.add(cell))
    except (UnknownNameError, PluginError):
        raise
    except (ConfigError, IncompatibleError, DataError) as error:
        return (), (Problem(where="stages", message=str(error)),)
    if not keys:
        text = f"none of [{', '.join(cell.stages)}] has anything to do here; name a stage that has"
        return (), (Problem(where="stages", message=text),)
    return keys, ()


def _check(graph: Graph, cells: dict[str, PlannedCell]) -> None:
    """Note the problems of every cell that could be put together; the store does not decide what is valid.

    Cells that differ in their seeds alone have the same ones.
    """
    known: dict[object, list[Problem]] = {}
    for name, planned in cells.items():
        if not planned.keys:
            continue
        like = planned.cell.likeness() or planned.cell.id
        if like not in known:
            files = graph.misread(planned.keys)
            known[like] = [*problems(planned.cell), *files, *foreign(graph, planned.keys)]
        found = (*known[like], *_unplaced(graph, planned))
        cells[name] = replace(planned, problems=found)


def _unplaced(graph: Graph, planned: PlannedCell) -> Iterator[Problem]:
    """That a cell wants several nodes, where nobody can place it on them."""
    needs = [Need.of(graph.nodes[key]) for key in planned.keys]
    largest = max(needs, default=Need())
    if largest.nodes > 1 and not graph.places_nodes and "WORLD_SIZE" not in os.environ:
        yield Problem(
            where="parallelism.num_nodes",
            message=f"{largest.nodes} nodes need a launcher that can place them; run the sweep with "
            f"hydra/launcher=submitit_slurm, or use parallelism.num_nodes=1 "
            f"parallelism.num_processes={largest.nodes * largest.processes}",
        )
