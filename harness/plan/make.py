"""From a command line to its plan: levels, seeds, cells, trials."""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterator, Sequence
from typing import Any

from harness.compose import Experiment, load, options_of
from harness.compose.arguments import experiment_name, standing
from harness.compose.schema import EXPERIMENT_KEYS
from harness.compose.settle import typed_keys
from harness.compose.typed import instance
from harness.errors import ConfigError
from harness.nodes import contained
from harness.plan.assemble import Assembler, Load, belongs_to
from harness.plan.cells import cells
from harness.plan.factors import Factor, chosen, factors, refuse_repeated, refuse_twice, request
from harness.plan.grammar import python_value
from harness.plan.graph import Graph
from harness.plan.intentions import check_claims, check_primary, refuse_unknown_factors, settled_baseline
from harness.plan.options import (
    idle_notes,
    refuse_idle_choices,
    refuse_idle_options,
    refuse_options_without_method,
    refuse_shapes_of_others,
    refuse_unread_options,
    swept_nodes,
)
from harness.plan.placing import place
from harness.plan.plan import Plan, PlannedCell, counted
from harness.plan.tune import make_tuning
from harness.store import Store
from harness.store.records import TRIALS, sweep_name

KEPT = ("experiment", "scale", "hydra.searchpath")
"""Overrides that say which experiment is meant, and where it lies."""
YOUNG = 50_000
"""Objects between two looks for cycles, in place of 700: next to all that a plan makes stays, and looking
again and again took a tenth of the demo's plan."""


def make_plan(
    arguments: Sequence[str], *, store: Store, single: bool = False, places_nodes: bool = False
) -> Plan:
    """The plan of a command line; `single` takes first levels and one seed, as `harness run` does.

    `places_nodes` says that whoever runs it can give a stage several nodes; else such cells are refused.

    Every cell is composed and validated here, before anything runs.
    Raises: ConfigError, UnknownNameError, PluginError, naming what is wrong and what works
    """
    with _seldom_collected():
        return _make(arguments, store=store, single=single, places_nodes=places_nodes)


@contextlib.contextmanager
def _seldom_collected() -> Iterator[None]:
    """Within it, cycles of objects are looked for seldom."""
    before = gc.get_threshold()
    gc.set_threshold(YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _make(arguments: Sequence[str], *, store: Store, single: bool, places_nodes: bool) -> Plan:
    """What `make_plan` makes."""
    asked = request(standing(arguments))
    if single and asked.swept:
        keys = ", ".join(item.key for item in asked.swept)
        raise ConfigError(f"harness run takes one value of {keys}; use `harness sweep` to cross several")
    composed = functools.cache(load)  # often the experiment, the base and its cells are one composition
    declared = _experiment(asked.base, composed)
    refuse_unknown_factors(declared, asked)
    labels = {text for item in chosen(declared, asked) for text in item.overrides()}
    base = tuple(text for text in asked.base if text not in labels)
    swept = swept_nodes(factors(declared, asked))
    node, choices = composed(tuple(text for text in base if not belongs_to(text, swept)))
    experiment = _from_node(node, choices.get("experiment"))
    found = factors(experiment, asked)
    seeds = _seeds(experiment, asked, int(node.seed))
    planned = cells(
        experiment,
        found,
        seeds=seeds,
        stages=list(node.stages),
        seed_from_typed=any(item.key == "seed_from" for item in asked.plain),
    )
    if not planned:
        raise ConfigError("the sweep has no cells: `exclude` leaves out all of them")
    refuse_options_without_method(base, planned, choices)
    experiment, notes = settled_baseline(experiment, found, declared=declared)
    notes += _taken(found, seeds) if single else []
    planned = planned[:1] if single else planned
    assembler = Assembler(
        tuple(text for text in base if not text.startswith("seed=")),
        typed=typed_keys([item.key for item in (*asked.plain, *asked.swept)]),
        load=composed,
    )
    assembler.foresee(item.overrides for item in planned)
    graph = Graph(store, places_nodes=places_nodes)
    made = Plan(
        name=_name(experiment, found),
        arguments=tuple(arguments),
        experiment=experiment,
        factors=found,
        cells=[],
        graph=graph,
        notes=notes,
    )
    if experiment.tune:
        fixed = {item.key for item in asked.plain}
        own = factors(declared, request(()))
        made.tuning = make_tuning(made, planned=planned, fixed=fixed, declared=own, assembler=assembler)
    if made.tuning is None:
        made.cells = list(place(assembler, graph, planned).values())
        _refuse_impossible(made.cells)
        duplicates = len(planned) - len(made.cells)
        if duplicates:
            notes.append(f"{counted(duplicates, 'cell')} the same as another, left out")
    elif made.tuning.settled:
        made.cells = made.tuning.cells()
    refuse_idle_choices(asked, made.first.cells)
    refuse_idle_options(asked, (cell.cell for cell in made.first.cells if cell.keys))
    composed_cells = [cell.cell for cell in made.first.cells if cell.keys]
    refuse_shapes_of_others(asked, composed_cells)
    refuse_unread_options(asked, made.first.cells)
    notes += idle_notes(asked, composed_cells)
    if experiment.claims:
        notes += check_claims(experiment, found, (cell.cell for cell in made.first.cells), declared=declared)
    if experiment.primary:
        notes += check_primary(experiment, (cell.cell for cell in made.first.cells))
    graph.save_caches()
    return made


def _derived_name(found: Sequence[Factor]) -> str:
    """The name of a sweep that nobody named: its factors, and never an experiment's own."""
    name = "_x_".join(factor.name.replace("/", ".") for factor in found) or "run"
    return f"{name}_sweep" if name in options_of("experiment") else name


def _refuse_impossible(made: Sequence[PlannedCell]) -> None:
    """Where no cell at all can be composed and put together, the command line is at fault.

    Raises: ConfigError with the first reason
    """
    if made and not any(cell.keys for cell in made):
        raise ConfigError(made[0].problems[0].message)


def _name(experiment: Experiment, found: Sequence[Factor]) -> str:
    """The sweep's name: the experiment's, or one made of what varies.

    Raises: ConfigError for what is no name
    """
    name = sweep_name(experiment.name or _derived_name(found))
    if name.endswith(TRIALS):
        raise ConfigError(
            f"name={name}: the records of a sweep's trials stand under such a name; use another"
        )
    return name


def named_levels(arguments: Sequence[str]) -> set[str]:
    """The factors of which a command line names one level, which Hydra alone cannot compose."""
    asked = request(standing(arguments))
    return {item.key for item in chosen(_experiment(asked.base, load), asked) if not item.sweeps}


def _experiment(base: Sequence[str], load: Load) -> Experiment:
    """The experiment that a command line names, before its levels are chosen; else an empty one."""
    own = tuple(text for text in base if text.partition("=")[0].lstrip("+") in KEPT)
    if all(text.startswith("scale=") for text in own):
        return Experiment()
    node, choices = load(own)
    return _from_node(node, choices.get("experiment"))


def _from_node(node: Any, name: str | None) -> Experiment:
    raw = contained(node)
    assert isinstance(raw, dict)
    raw["name"] = raw["name"] or experiment_name(name)
    return instance(Experiment, {key: raw[key] for key in EXPERIMENT_KEYS}, where="experiment")


def _seeds(experiment: Experiment, asked: Any, given: int) -> list[int]:
    typed = {item.key: item for item in (*asked.plain, *asked.swept) if item.key in ("seed", "seeds")}
    if len(typed) > 1:
        both = " and ".join(f"{key}={','.join(item.values)}" for key, item in typed.items())
        raise ConfigError(f"{both} both say which seeds there are; drop one of them")
    for item in asked.swept:
        if item.key == "seed":
            refuse_repeated(item)
            values = [python_value(value) for value in item.values]
            wrong = [value for value in values if not str(value).lstrip("-").isdigit()]
            if wrong:
                raise ConfigError(f"seed={wrong[0]}: a seed is an integer")
            return [int(value) for value in values]
    if any(item.key == "seed" for item in asked.plain):
        return [given]
    if not experiment.seeds:
        raise ConfigError("seeds: [] names no seed; use e.g. seeds=[0,1,2]")
    refuse_twice(experiment.seeds, where=f"seeds: [{', '.join(map(str, experiment.seeds))}]")
    return list(experiment.seeds)


def _taken(found: list[Factor], seeds: list[int]) -> list[str]:
    """A note on which of several cells `harness run` takes."""
    chosen = [f"{f.name}={f.levels[0].label}" for f in found if len(f.levels) > 1]
    if len(seeds) > 1:
        chosen.append(f"seed={seeds[0]}")
    return [f"one cell of several: {', '.join(chosen)}; `harness sweep` runs all"] if chosen else []
