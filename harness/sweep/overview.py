"""`harness plan`: cells, shared stages, problems and costs; nothing is run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from harness.method import Choice
from harness.store import Store
from harness.sweep.estimate import Cost, Size, training_cost
from harness.sweep.graph import Node
from harness.sweep.launch import job_overrides
from harness.sweep.plan import Plan, make_plan
from harness.sweep.table8 import table8

HELP = """usage: harness plan KEY=VALUE[,VALUE...] ... [--json]
       harness plan --table8

Cells, the stage graph after sharing, what is in the store, pairs that cannot work with their reason, and
estimated FLOPs, peak memory and disk of what is to run. Nothing is run.
--table8 prints the survey's compute table (arXiv:2303.18223, section 5.1.5) by the same formulas."""
BYTES_PER_TOKEN = 3.0
"""Assumed where no tokenizer of the plan is in the store yet."""


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
    made = make_plan(job_overrides(text for text in arguments if text != "--json"), store=Store())
    if "--json" in arguments:
        print(json.dumps(describe(made), indent=1))
        return 0
    console = Console()
    console.print(made.summary(), highlight=False)
    for note in made.notes:
        console.print(note, highlight=False, markup=False)
    console.print(_stage_table(made))
    for cell in made.cells:
        for problem in cell.problems:
            where = " ".join(f"{name}={label}" for name, label in cell.levels.items())
            word = "cannot work" if problem.fatal else "note"
            console.print(f"{where}: {word}: {problem}", highlight=False, markup=False)
    return 0


def describe(made: Plan) -> dict[str, Any]:
    """A plan as JSON."""
    missing = {node.key for node in made.missing()}
    return {
        "sweep": made.name,
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
                "estimate": asdict(cost) if (cost := cost_of(made, made.graph.nodes[key])) else None,
            }
            for key in made.wanted()
        ],
    }


def cost_of(made: Plan, node: Node) -> Cost | None:
    """What a training stage costs at most (full sequences); None for stages that train no model of a known
    size."""
    budget = getattr(node.config, "budget", None)
    spec = node.cell.spec()
    if budget is None or spec is None:
        return None
    length, batch = node.config.sequence_length, node.config.batch_size
    size = Size.of(spec, gated=_method(node, "feed_forward") not in ("mlp", "relu", "gelu"))
    trained = 1.0 if _method(node, "peft") in ("", "full") else 0.01
    unit, amount = budget.unit.name, budget.amount
    per_token = size.flops_per_token(length, trained=trained)
    tokens = {
        "tokens": amount,
        "steps": amount * batch * length,
        "flops": amount / per_token,
        "bytes": amount / _bytes_per_token(made, node),
    }.get(unit)
    if tokens is None:
        return None
    return training_cost(
        size,
        tokens=tokens,
        sequence_length=length,
        micro_batch=node.config.micro_batch_size or batch,
        trained=trained,
        mixed=_method(node, "precision") not in ("", "fp32"),
        recompute=bool(getattr(node.config, "recompute", False)),
    )


def speed_of(made: Plan) -> float | None:
    """FLOP/s that trainings reached on this store's machines: the median of its artifacts; None without."""
    found = []
    for key in made.graph.store.all_keys():
        artifact = made.graph.store.find(key)
        facts = artifact.facts if artifact is not None else {}
        if facts.get("flops") and facts.get("seconds"):
            found.append(facts["flops"] / facts["seconds"])
    return sorted(found)[len(found) // 2] if found else None


def _method(node: Node, axis: str) -> str:
    choice = node.choices.get(axis) or node.cell.choice(axis)
    return choice.method.name if isinstance(choice, Choice) else ""


def _bytes_per_token(made: Plan, node: Node) -> float:
    for key in (*made.graph.ancestors(node.key), node.key):
        other = made.graph.nodes[key]
        artifact = made.graph.store.find(key) if other.kind == "tokenizer" else None
        if artifact is not None and artifact.facts.get("bytes_per_token"):
            return float(artifact.facts["bytes_per_token"])
    return BYTES_PER_TOKEN


def print_table8() -> None:
    """The survey's compute table by the planner's formulas, beside what was printed."""
    console = Console()
    table = Table(
        "LLaMA", "full: GPUs", "GiB each", "on half", "LoRA batch", "printed", "inference GPUs", "printed"
    )
    for row in table8():
        gib = list(row["full_gib"].values())
        table.add_row(
            row["model"],
            f"{row['full_gpus']} {'fits' if row['full_fits'] else 'does not fit'}",
            f"{gib[0]:.1f}",
            f"{gib[1]:.1f} {'fits' if row['half_fits'] else 'does not fit'}",
            f"{row['lora_batch'][False]} to {row['lora_batch'][True]}",
            str(row["lora_printed"]),
            f"{row['inference_exact']} / {row['inference_power_of_two']}",
            str(row["inference_printed"]),
        )
    console.print(table)
    for row in table8():
        for note in row["notes"]:
            console.print(f"{row['model']}: {note}", highlight=False)


def _stage_table(made: Plan) -> Table:
    missing = {node.key for node in made.missing()}
    wanted = made.wanted()
    speed = speed_of(made)
    table = Table(
        "stage", "asked", "distinct", "to run", "in the store", "FLOPs", "peak memory", "disk", "hours"
    )
    asked = Counter(
        made.graph.nodes[key].stage for cell in made.cells if not cell.refused for key in cell.keys
    )
    for stage in dict.fromkeys(made.graph.nodes[key].stage for key in wanted):
        own = [key for key in wanted if made.graph.nodes[key].stage == stage]
        to_run = [cost_of(made, made.graph.nodes[key]) for key in own if key in missing]
        known = [cost for cost in to_run if cost is not None]
        flops = sum(cost.flops for cost in known)
        table.add_row(
            stage,
            str(asked[stage]),
            str(len(own)),
            str(len(to_run)),
            str(len(own) - len(to_run)),
            f"{flops:.2e}" if known else "",
            f"{max(cost.memory for cost in known) / 2**30:.2f} GiB" if known else "",
            f"{sum(cost.disk for cost in known) / 2**30:.2f} GiB" if known else "",
            f"{flops / speed / 3600:.2f}" if known and speed else "",
        )
    return table
