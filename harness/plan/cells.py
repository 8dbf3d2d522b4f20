"""From factors to the cells of a sweep: which overrides, which levels, which seed."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.compose import Experiment
from harness.errors import ConfigError, UnknownNameError
from harness.plan.factors import Factor, Level, factors, request
from harness.plan.grammar import label_text, parse, value_text
from harness.registry.known import registry

_ALL = "all"
_TOUCHED = "touched"
_STAGES = "stages"


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """One cell to compose: overrides on top of the sweep's own, and where it stands in the table."""

    overrides: tuple[str, ...]
    levels: dict[str, str]
    seed: int


def cells(
    experiment: Experiment,
    found: Sequence[Factor],
    *,
    seeds: Sequence[int],
    stages: Sequence[str],
    seed_from_typed: bool = False,
) -> list[CellPlan]:
    """Every cell: product or zip of the factors, or the experiment's explicit list, times the seeds.

    The stage from which a seed varies a cell follows from its factors, unless it was typed, or a level sets
    it.
    Raises: ConfigError, UnknownNameError where zip, cells or exclude name what does not exist
    """
    combinations = list(_combinations(experiment, found))
    excluded = [dict(item) for item in experiment.exclude]
    for item in excluded:
        _check_names(item, found, where="exclude")
        _check_levels(item, experiment, found)
    first = first_stage(experiment, found, stages)
    planned = []
    for combination in combinations:
        if any(_matches(combination, item) for item in excluded):
            continue
        overrides = tuple(text for level in combination.values() for text in level.overrides)
        levels = {name: level.label for name, level in combination.items()}
        own: tuple[str, ...] = ()
        if not seed_from_typed and not any(text.startswith("seed_from=") for text in overrides):
            own = (f"seed_from={_own_first(_stages(overrides, stages), first, stages) or 'null'}",)
        for seed in seeds:
            planned.append(CellPlan(overrides=(*overrides, f"seed={seed}", *own), levels=levels, seed=seed))
    return planned


def first_stage(experiment: Experiment, found: Iterable[Factor], stages: Sequence[str]) -> str | None:
    """The first stage that a factor touches or that is tuned: `seed` varies it and all after it.

    None: all stages
    """
    known = (_ALL, _TOUCHED, *stages)
    if experiment.reseed not in known:
        raise UnknownNameError(what="way to reseed", name=experiment.reseed, known=known)
    if experiment.reseed == _ALL:
        return None
    if experiment.reseed != _TOUCHED:
        return experiment.reseed
    varied = {key for factor in found for key in factor.sets() - {_STAGES}}
    keys = varied | tuned_keys(experiment.tune or {})
    touched = [touched_stage(key, stages) for key in keys]
    for factor in found:
        touched += _parting(factor, stages)
    positions = [stages.index(stage) for stage in touched if stage is not None]
    return stages[min(positions)] if positions else None


def _own_first(own: Sequence[str], first: str | None, stages: Sequence[str]) -> str | None:
    """The stage from which a seed varies a cell that lists its `own`: where it lacks the `first` of the
    sweep's `stages`, the next it has; where that was its end, its last."""
    if first is None or first in own or not own:
        return first
    before = stages[: stages.index(first)]
    return next((stage for stage in own if stage not in before), own[-1])


def _stages(overrides: Iterable[str], stages: Sequence[str]) -> Sequence[str]:
    """The stages of a cell: those that its own overrides list, else the sweep's."""
    found = [_listed(text) for text in overrides if text.partition("=")[0] == _STAGES]
    return found[-1] if found else stages


@functools.cache
def _listed(text: str) -> Sequence[str]:
    (item,) = parse([text])
    value = item.value()
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _parting(factor: Factor, stages: Sequence[str]) -> list[str]:
    """The stages at the first place where the levels' lists of stages part; nothing where none sets them."""
    if _STAGES not in factor.sets():
        return []
    lists = [_stages(level.overrides, stages) for level in factor.levels]
    parting = next((row for row in itertools.zip_longest(*lists) if len(set(row)) > 1), ())
    return [stage for stage in parting if stage in stages]


def tuned_keys(block: Mapping[str, Any]) -> set[str]:
    """Options that a `tune:` block varies."""
    own = [space for levels in (block.get("methods") or {}).values() for space in levels.values()]
    return {str(path) for space in (block.get("space") or {}, *own) for path in space}


def touched_stage(key: str, stages: Sequence[str]) -> str | None:
    """The first stage that a config key can change; None where it changes no stage."""
    from harness.compose.schema import stage_axes

    group, _, package = key.lstrip("+~").partition("@")
    head = (package or group).replace("/", ".").split(".")[0]
    if head in ("device", "tracker", "seed", "base_seed"):
        return None
    if head == "model":
        return next((s for s in stages if registry().stage(s).produces == "model"), None)
    for stage in stages:
        if stage == head or stage.partition("@")[0] == head or head in stage_axes(stage):
            return stage
    return stages[0] if stages else None


def _crossed(experiment: Experiment, found: Sequence[Factor]) -> Iterator[dict[str, Level]]:
    """The product of the factors; those that `zip` names move together and count as one."""
    by_name = {factor.name: factor for factor in found}
    groups = experiment.zip
    if groups and all(isinstance(name, str) for name in groups):
        groups = [groups]
    together: dict[str, tuple[str, ...]] = {}
    for group in groups:
        for name in group:
            if name not in by_name:
                raise UnknownNameError(what="factor (in zip)", name=str(name), known=by_name)
            together[name] = tuple(group)
        lengths = {name: len(by_name[name].levels) for name in group}
        if len(set(lengths.values())) > 1:
            raise ConfigError(f"zip: factors that move together need equally many levels, not {lengths}")
    dimensions: list[list[dict[str, Level]]] = []
    done: set[str] = set()
    for factor in found:
        if factor.name in done:
            continue
        names = together.get(factor.name, (factor.name,))
        done.update(names)
        rows = zip(*(by_name[name].levels for name in names), strict=True)
        dimensions.append([dict(zip(names, row, strict=True)) for row in rows])
    for parts in itertools.product(*dimensions):
        merged = {name: level for part in parts for name, level in part.items()}
        yield {factor.name: merged[factor.name] for factor in found}


def _combinations(experiment: Experiment, found: Sequence[Factor]) -> Iterator[dict[str, Level]]:
    """The product of the factors, or the experiment's list of cells with the product of those that it names
    nowhere."""
    if not experiment.cells:
        yield from _crossed(experiment, found)
        return
    named = {name for row in experiment.cells for name in row}
    others = list(_crossed(experiment, [factor for factor in found if factor.name not in named]))
    for row in _explicit(experiment, found):
        yield from ({**row, **other} for other in others)


def _explicit(experiment: Experiment, found: Sequence[Factor]) -> Iterator[dict[str, Level]]:
    """The cells of an explicit list: each names levels of factors, or sets keys directly."""
    by_name = {factor.name: factor for factor in found}
    for row in experiment.cells:
        combination = {}
        for name, value in row.items():
            if name in by_name:
                combination[name] = by_name[name].level(value)
            else:
                combination[name] = Level(label_text(value), (f"{name}={value_text(value)}",))
        yield combination


def _matches(combination: Mapping[str, Level], excluded: Mapping[str, Any]) -> bool:
    for name, labels in excluded.items():
        wanted = labels if isinstance(labels, list) else [labels]
        if name not in combination or combination[name].label not in {label_text(v) for v in wanted}:
            return False
    return True


def _check_names(names: Iterable[str], found: Sequence[Factor], *, where: str) -> None:
    known = [factor.name for factor in found]
    for name in names:
        if name not in known:
            raise UnknownNameError(what=f"factor (in {where})", name=str(name), known=known)


def _check_levels(excluded: Mapping[str, Any], experiment: Experiment, found: Sequence[Factor]) -> None:
    """Refuse a level that no factor has, neither as the experiment states it nor as it was narrowed since."""
    stated = {factor.name: factor.levels for factor in factors(experiment, request([]))}
    for factor in found:
        known = dict.fromkeys(level.label for level in (*stated.get(factor.name, ()), *factor.levels))
        labels = excluded.get(factor.name, [])
        for label in labels if isinstance(labels, list) else [labels]:
            if label_text(label) not in known:
                what = f"level of factor '{factor.name}' (in exclude)"
                raise UnknownNameError(what=what, name=label_text(label), known=known)
