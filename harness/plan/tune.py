"""`tune:` blocks, read and checked: the same number of trials for every method, chosen by validation data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.axes.evaluator import Evaluator
from harness.compose import Cell, Experiment
from harness.compose.typed import instance
from harness.errors import ConfigError, UnknownNameError
from harness.plan.assemble import Assembler
from harness.plan.cells import CellPlan
from harness.plan.factors import Factor
from harness.plan.grammar import label_text, parse
from harness.plan.plan import Plan
from harness.plan.space import Point, dimension, grid
from harness.plan.trials import SPLIT, Search, Tune, Tuned, Tuning, with_point
from harness.registry.known import registry

MAX_TRIALS = 1000
"""Of every method."""


def make_tuning(
    sweep: Plan,
    *,
    planned: list[CellPlan],
    fixed: Collection[str],
    declared: Sequence[Factor],
    assembler: Assembler,
) -> Tuning | None:
    """The tuning that a sweep's `tune:` block asks for; None where the command line fixes it all.

    `planned` are the sweep's cells, `fixed` the options that the command line sets, `declared` the factors
    as the experiment has them: a range of a level that was not chosen is left unread.
    Raises: ConfigError, UnknownNameError for a block that cannot work, before anything runs
    """
    experiment, factors = sweep.experiment, sweep.factors
    block = instance(Tune, experiment.tune or {}, where="tune")
    _check_levels(block, [*factors, *declared])
    methods = []
    for levels, base in _methods(block, experiment, factors, planned):
        spaces = _spaces(block, levels, factors)
        _refuse_factors(base, spaces)
        cell = assembler.cell(base.overrides)
        dims = tuple(
            dimension(path, spec, where=where, integer=_is_integer(cell, path))
            for path, (where, spec) in spaces.items()
            if path not in fixed
        )
        methods.append(Tuned(levels=levels, base=base, dimensions=dims))
    if not any(method.dimensions for method in methods):
        return None
    made = Tuning(
        name=sweep.name,
        block=replace(block, trials=_trials(block, methods)),
        metric=_metric(block, assembler.cell(planned[0].overrides)),
        experiment=experiment,
        factors=factors,
        planned=planned,
        assembler=assembler,
        graph=sweep.graph,
        methods=methods,
    )
    for method in methods:
        for share in (0.0, 1.0):
            _with_checked(made, method, {dim.path: dim.at(share) for dim in method.dimensions})
    made.look()
    return made


def _methods(
    block: Tune, experiment: Experiment, factors: Sequence[Factor], planned: Sequence[CellPlan]
) -> list[tuple[dict[str, str], CellPlan]]:
    """Each method's levels and the cell its trials vary: other factors at the baseline, the first seed."""
    names = [factor.name for factor in factors]
    for name in [*(block.by or ()), *block.methods]:
        if name not in names:
            raise UnknownNameError(what="factor (in tune)", name=name, known=names)
    by = names if block.by is None else block.by
    baseline = {name: label_text(level) for name, level in experiment.baseline.items()}
    found: dict[tuple[str, ...], CellPlan] = {}
    for item in planned:
        key = tuple(item.levels[name] for name in by if name in item.levels)
        at_baseline = all(item.levels.get(f) == v for f, v in baseline.items() if f not in by)
        known = found.get(key)
        if known is None or (at_baseline and not _is_at(known, baseline, by)):
            found[key] = item
    return [({f: item.levels[f] for f in by if f in item.levels}, item) for item in found.values()]


def _is_at(item: CellPlan, baseline: Mapping[str, str], by: Collection[str]) -> bool:
    return all(item.levels.get(f) == label for f, label in baseline.items() if f not in by)


def _spaces(block: Tune, levels: Mapping[str, str], factors: Sequence[Factor]) -> dict[str, tuple[str, Any]]:
    """The ranges of one method, each with where it is stated: those of all, replaced by its own."""
    spaces = {path: ("tune.space", spec) for path, spec in block.space.items()}
    for factor in factors:
        for label, own in block.methods.get(factor.name, {}).items():
            if levels.get(factor.name) == label_text(label):
                where = f"tune.methods.{factor.name}.{label}"
                spaces |= {path: (where, spec) for path, spec in own.items()}
    if not spaces:
        raise ConfigError("tune.space is empty; give e.g. {pretrain.learning_rate: {low: 1e-4, high: 1e-2}}")
    return {path: (where, spec) for path, (where, spec) in spaces.items() if spec is not None}


def _check_levels(block: Tune, factors: Sequence[Factor]) -> None:
    """Refuse a range for a level that does not exist, whichever levels were chosen."""
    for name, ranges in block.methods.items():
        alike = [factor for factor in factors if factor.name == name]
        if not alike:
            raise UnknownNameError(what="factor (in tune)", name=str(name), known={f.name for f in factors})
        known = {level.label for factor in alike for level in factor.levels}
        for label in ranges:
            if label_text(label) not in known:
                alike[0].level(label)


def _refuse_factors(base: CellPlan, spaces: Mapping[str, tuple[str, Any]]) -> None:
    """No option may be set by a factor's level and tuned as well."""
    for item in parse(base.overrides):
        if item.key in spaces:
            raise ConfigError(
                f"{spaces[item.key][0]}.{item.key} is tuned and also set by a factor "
                f"({item.overrides()[0]}); drop one"
            )


def _trials(block: Tune, methods: Sequence[Tuned]) -> int:
    """How many trials every method gets.

    Raises: ConfigError where they are not stated, or not the same for all
    """
    if block.trials < 0 or (not block.trials and block.search is not Search.grid):
        raise ConfigError(f"tune.trials={block.trials} must be 1 or more: every method gets as many")
    if block.trials > MAX_TRIALS:
        raise ConfigError(
            f"tune.trials={block.trials} must be at most {MAX_TRIALS}: each is a cell of the plan"
        )
    sizes = {}
    for method in methods:
        if block.trials or any(not dim.values for dim in method.dimensions):
            if not block.trials:
                raise ConfigError(
                    "tune.trials must be given: a grid over a range does not say how fine it is"
                )
            if block.search is Search.grid and method.dimensions:
                grid(method.dimensions, trials=block.trials, where=method.name)
            continue
        sizes[method.name] = math.prod(len(dim.values) for dim in method.dimensions)
    if len(set(sizes.values())) > 1:
        raise ConfigError(f"tune: every method gets the same number of trials, but the grids have {sizes}")
    return block.trials or next(iter(sizes.values()))


def _metric(block: Tune, cell: Cell) -> str:
    """The metric in full; its evaluator must be chosen, and report another split.

    Raises: UnknownNameError, ConfigError
    """
    if not any(cell.makes(stage) == "evaluation" for stage in cell.stages):
        raise ConfigError(f"tune.metric={block.metric} needs the stage evaluate; add it to `stages`")
    chosen = {choice.method.name: choice for choice in cell.choices("evaluator")}
    known: dict[str, str] = {}
    for name, method in registry().methods("evaluator").items():
        assert issubclass(method, Evaluator)
        config = chosen[name].config if name in chosen else method.Config()
        for task in method.tasks(config) if method.on_validation else ():
            known |= {f"{name}.{task}.{metric}": name for metric in sorted(method.on_validation)}
    fits = [full for full in known if f".{full}".endswith(f".{block.metric}")]
    if not fits:
        raise UnknownNameError(
            what=f"metric measured on the {SPLIT} split (tune.metric)", name=block.metric, known=known
        )
    if len(fits) > 1:
        raise ConfigError(f"tune.metric={block.metric} fits {', '.join(fits)}; name one of them in full")
    (full,) = fits
    if known[full] not in chosen:
        raise ConfigError(
            f"tune.metric={block.metric} is not measured: evaluator={known[full]} is not chosen; "
            f"choose it too, evaluator=[{','.join([*chosen, known[full]])}]"
        )
    if chosen[known[full]].config.split == SPLIT:
        raise ConfigError(
            f"evaluator.{known[full]}.split={SPLIT} would report what tune chooses by; report another split"
        )
    return full


def _is_integer(cell: Cell, path: str) -> bool:
    """Whether an option holds an integer, so that a range of it takes integers alone."""
    node: Any = cell.config
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return isinstance(node, int) and not isinstance(node, bool)


def _with_checked(made: Tuning, method: Tuned, point: Point) -> None:
    """Compose a method's cell at a point, so that a path or value that cannot be is refused now."""
    try:
        made.assembler.cell(with_point(method.base, point).overrides)
    except ConfigError as error:
        raise ConfigError(f"tune.space of {method.name}: {error}") from error
