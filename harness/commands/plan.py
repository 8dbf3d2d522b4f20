"""`harness plan`: cells, shared stages, problems and costs; nothing is run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from harness.commands.output import answer
from harness.commands.table8 import print_table8
from harness.compose import load
from harness.compose.arguments import SEARCH, job_overrides, standing
from harness.plan.costs import Costs
from harness.plan.devices import lacking
from harness.plan.estimate import Cost
from harness.plan.files import flat
from harness.plan.make import make_plan
from harness.plan.plan import Plan, PlannedCell
from harness.registry.known import registry
from harness.report.intended import check_layout
from harness.run.launch import NODES_LAUNCHER
from harness.run.machine import available_memory
from harness.store import Store

if TYPE_CHECKING:
    from harness.plan.trials import Tuning

HELP = """usage: harness plan KEY=VALUE[,VALUE...] ... [--json] [--probe]
       harness plan --table8

Cells, the stage graph after sharing, what is in the store, pairs that cannot work with their reason, and
estimated FLOPs, peak memory, disk and hours of what is to run. Nothing is run; the exit code is 1 where no
cell can run.
--probe times a few steps of each training's model, so that hours are known before anything has run.
--table8 prints the survey's compute table (arXiv:2303.18223, section 5.1.5) by the same formulas."""
FLAGS = ("--json", "--probe")
NOTHING_RUNS = 1
"""Exit code of a plan in which no cell can run."""
LEGEND = (
    "Of what is to run: FLOPs, peak tensor memory of one stage (at full sequences) and disk by formula where "
    "a model is trained (< at most: nothing is known yet of how long sequences are), else as this store has "
    "measured such stages; device-hours at the speed it has measured (--probe: at that of a few steps now). "
    "Empty: not known yet."
)


def main(arguments: Sequence[str]) -> int:
    """Show what a command line would do.

    Raises: ConfigError and its kin, naming what is wrong
    """
    if "--help" in arguments or "-h" in arguments:
        print(HELP)
        return 0
    if "--table8" in arguments:
        print_table8()
        return 0
    asked = standing([text for text in arguments if text not in FLAGS])
    ours = job_overrides(asked)
    if len(ours) < len(asked):
        load([text for text in asked if text not in ours or text.startswith(SEARCH)])
    made = make_plan(ours, store=Store(), places_nodes=NODES_LAUNCHER in asked)
    check_layout(made)
    made.first.notes += filter(None, [lacking(made.first.missing())])
    costs = Costs(made.first, probe=available_memory() if "--probe" in arguments else 0)
    code = NOTHING_RUNS if all(cell.refused for cell in made.first.cells) else 0
    if "--json" in arguments:
        answer(json.dumps(describe(made, costs), indent=1))
        return code
    console = Console()
    lines = tuning_lines(made.tuning) if made.tuning is not None else []
    for line in (*lines, made.first.summary(), *made.notes):
        console.print(line, highlight=False, markup=False)
    console.print(stage_table(made.first, costs), highlight=False)
    console.print(LEGEND, style="dim", highlight=False)
    for line in spread_lines(made.first, costs):
        console.print(line, highlight=False, markup=False)
    for line in item_lines(made.first):
        console.print(line, highlight=False, markup=False)
    for line in problem_lines(made.first):
        console.print(line, highlight=False, markup=False)
    return code


def describe(made: Plan, costs: Costs) -> dict[str, Any]:
    """A plan as JSON; of a tuned sweep whose trials are open, the plan of the trials."""
    tune = None if made.tuning is None else made.tuning.describe()
    made = made.first
    missing = {node.key for node in made.missing()}
    return {
        "sweep": made.name,
        "tune": tune,
        "summary": made.summary(),
        "notes": made.notes,
        "factors": {factor.name: [level.label for level in factor.levels] for factor in made.factors},
        "cells": [
            {
                "cell": cell.cell.id,
                "levels": cell.levels,
                "seed": cell.seed,
                "overrides": list(cell.cell.overrides),
                "stages": list(cell.keys),
                "problems": [str(problem) for problem in cell.problems],
                "refused": bool(cell.refused),
            }
            for cell in made.cells
        ],
        "stages": [
            {
                "key": key,
                "stage": made.graph.nodes[key].stage,
                "part": made.graph.nodes[key].part,
                "inputs": made.graph.nodes[key].inputs,
                "seed": made.graph.nodes[key].seed,
                "stored": key not in missing,
                "estimate": asdict(costs.of(made.graph.nodes[key])),
                "each_process": asdict(each) if (each := costs.share(made.graph.nodes[key])) else None,
            }
            for key in made.wanted()
        ],
    }


def stage_table(made: Plan, costs: Costs) -> Table:
    """One line a stage, narrow enough for 80 columns; `<` marks what is a bound."""
    missing = {node.key for node in made.missing()}
    wanted = made.wanted()
    nodes = made.graph.nodes
    table = Table(box=None, padding=(0, 2, 0, 0))
    for column in ("stage", "asked", "to run", "stored", "FLOPs", "memory", "disk", "hours"):
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    asked = Counter(nodes[key].stage for cell in made.cells if not cell.refused for key in cell.keys)
    all_costs: list[Cost] = []
    counts = Counter[str]()
    order = list(registry().stages)
    stages = {*asked, *(nodes[key].stage for key in wanted)}  # also of models that options name
    for stage in sorted(stages, key=lambda name: order.index(name.partition("@")[0])):
        own = [key for key in wanted if nodes[key].stage == stage]
        found = [costs.of(nodes[key]) for key in own if key in missing]
        stored = len(own) - len(found)
        all_costs += found
        counts.update(asked=asked[stage], to_run=len(found), stored=stored)
        table.add_row(stage, str(asked[stage]), str(len(found)), str(stored), *_cost_texts(found))
    table.add_row(
        "all",
        str(counts["asked"]),
        str(counts["to_run"]),
        str(counts["stored"]),
        *_cost_texts(all_costs),
        style="bold",
    )
    return table


def item_lines(made: Plan) -> list[str]:
    """How many items the measurements of a plan have, one line; those of unknown number by name."""
    counts: dict[str, int | None] = {}
    for key in made.wanted():
        node = made.graph.nodes[key]
        for choice in flat(node.choices):
            if choice.axis == "evaluator":
                method, task = choice.method, node.part.partition(".")[2]
                counts.setdefault(node.part, method.num_items(choice.config, task))  # type: ignore[attr-defined]
    known = [f"{part} {count}" for part, count in counts.items() if count is not None]
    open_ended = [part for part, count in counts.items() if count is None and part.startswith("lm_eval.")]
    lines = [f"Items at most: {', '.join(known)}."] if known else []
    if open_ended:
        lines.append(f"All items of: {', '.join(open_ended)} (evaluator.lm_eval.limit bounds them).")
    return lines


def spread_lines(made: Plan, costs: Costs) -> list[str]:
    """What each of several processes takes, once for all trainings of which it is the same."""
    lines: dict[str, None] = {}
    for key in made.wanted():
        node = made.graph.nodes[key]
        each = costs.share(node)
        if each is None:
            continue
        sent = {"data": each.along_data, "tensor": each.along_tensor, "pipeline": each.along_pipeline}
        said = ", ".join(f"{size_text(count)} along {way}" for way, count in sent.items() if count)
        waits = f"; a pipeline waits {each.bubble:.1%} of the time it works" if each.bubble else ""
        lines[
            f"{node.stage}, each of {each.processes} processes ({each.grid}): at most "
            f"{size_text(each.memory)}, sends {said or 'nothing'} in a step{waits}"
        ] = None
    return list(lines)


def _cost_texts(found: Sequence[Cost]) -> tuple[str, str, str, str]:
    """FLOPs, memory, disk and hours of stages together; empty where nothing is known of any."""
    flops = [cost.flops for cost in found if cost.flops is not None]
    memory = [cost.memory for cost in found if cost.memory is not None]
    disk = [cost.disk for cost in found if cost.disk is not None]
    seconds = [cost.seconds for cost in found if cost.seconds is not None]
    bound = "<" if any(cost.at_most for cost in found) else ""
    return (
        f"{bound}{sum(flops):.1e}".replace("e+", "e") if flops else "",
        size_text(max(memory)) if memory else "",
        size_text(sum(disk)) if disk else "",
        f"{bound}{sum(seconds) / 3600:.2f}" if seconds else "",
    )


def size_text(count: float) -> str:
    """A number of bytes with its unit."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.3g} GiB" if count < 1000 else f"{count:.0f} GiB"


def problem_lines(made: Plan) -> list[str]:
    """Each reason once, with the cells it concerns."""
    found: dict[tuple[bool, str], list[PlannedCell]] = {}
    for cell in made.cells:
        for problem in cell.problems:
            found.setdefault((problem.fatal, str(problem)), []).append(cell)
    lines = []
    for (fatal, text), cells in sorted(found.items(), key=lambda item: not item[0][0]):
        shown = list(dict.fromkeys(" ".join(f"{k}={v}" for k, v in cell.levels.items()) for cell in cells))
        more = f" and {len(shown) - 3} more" if len(shown) > 3 else ""
        word = "cannot work" if fatal else "note"
        lines.append(f"{word} ({len(cells)} of {len(made.cells)} cells): {text}")
        if any(shown):
            lines.append(f"  {'; '.join(shown[:3])}{more}")
    return lines


def tuning_lines(tuning: Tuning) -> list[str]:
    """The trials of each method, and what waits for them."""
    lines = [tuning.summary()]
    for method in tuning.methods:
        space = "; ".join(f"{dim.path}: {dim.text()}" for dim in method.dimensions) or "nothing to tune"
        best = method.best()
        found = ""
        if tuning.settled and best is not None:
            found = ": best " + ", ".join(f"{path}={value}" for path, value in best.point.items())
            found += " (on the edge)" if method.edges() else ""
        lines.append(f"  {method.name}  {space}{found}")
    if not tuning.settled:
        lines.append(f"pending: {len(tuning.planned)} cells; their keys are known once the trials have ended")
    return lines
