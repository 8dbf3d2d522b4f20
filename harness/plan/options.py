"""Options that the command line fixes for a sweep over methods: every method must have them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from harness.compose import Cell
from harness.compose.hydra import written_out
from harness.compose.schema import model_options, readers, sections, stage_axes, stage_key
from harness.errors import ConfigError, UnknownNameError
from harness.method import Choice
from harness.plan.assemble import belongs_to, is_axis
from harness.plan.cells import CellPlan
from harness.plan.factors import Factor, Request
from harness.plan.files import owner
from harness.plan.grammar import parse
from harness.plan.plan import PlannedCell
from harness.plan.problems import choices
from harness.registry.known import registry


def swept_nodes(found: Iterable[Factor]) -> set[str]:
    """Nodes whose method differs between cells: `peft`, `align.optimizer`."""
    keys = {key for factor in found for key in factor.sets() if is_axis(key)}
    return {key.partition("@")[2] or key for key in keys}


def refuse_options_without_method(
    base: Sequence[str], planned: Sequence[CellPlan], chosen_below: Mapping[str, str | None]
) -> None:
    """An option of a swept method must be one that every method of the sweep has; `none` leaves the axis out.

    On a list axis, some cell must choose the method that it is an option of.

    Raises: ConfigError, UnknownNameError
    """
    nodes = {key.partition("@")[2] or key: key for key in _axis_keys(planned)}
    for option in parse(base):
        for node, key in nodes.items():
            if belongs_to(option.key, {node}):
                methods = _methods(key, planned, chosen_below.get(key))
                _check(option.key, option.overrides()[0], node, key.partition("@")[0], methods)


def _axis_keys(planned: Sequence[CellPlan]) -> list[str]:
    """Keys by which some cell chooses on an axis."""
    keys = (text.partition("=")[0] for cell in planned for text in cell.overrides)
    return [key for key in dict.fromkeys(keys) if is_axis(key)]


def _methods(key: str, planned: Sequence[CellPlan], below: str | None) -> list[str]:
    """What the cells choose by a key, each once; those that do not, keep the choice below them."""
    found: dict[str, None] = {}
    for cell in planned:
        own = [text for text in cell.overrides if text.partition("=")[0] == key]
        if own:
            found.update(dict.fromkeys(_names(own[0])))
        elif below is not None:
            found[below] = None
    return list(found)


def _names(text: str) -> list[str]:
    """The methods that an override chooses: several on a list axis, `mixture` where a list means that."""
    value = parse(written_out([text]))[0].value()
    return [str(name) for name in (value if isinstance(value, list) else [value])]


def _check(key: str, text: str, node: str, axis: str, methods: Sequence[str]) -> None:
    name = key.lstrip("+~").removeprefix(f"{node}.").partition(".")[0]
    if registry().axes[axis].many:
        if name not in methods:
            raise UnknownNameError(what=f"chosen {axis} (in {text})", name=name, known=methods)
        return
    if registry().axes[axis].optional and set(methods) - {"none"}:
        methods = [method for method in methods if method != "none"]
    options = {method: [f.name for f in fields(registry().get(axis, method).Config)] for method in methods}
    lacking = [method for method in methods if name not in options[method]]
    if len(lacking) == len(methods):
        known = {option for names in options.values() for option in names}
        raise UnknownNameError(
            what=f"option of {' or '.join(f'{axis}={m}' for m in methods)}", name=name, known=known
        )
    if lacking:
        having = [method for method in methods if method not in lacking]
        names = " and ".join(f"{axis}={method}" for method in lacking)
        first = lacking[0]
        raise ConfigError(
            f"{text}: {names} {_has(lacking)} no option '{name}' ({', '.join(having)} {_has(having)}); leave "
            f"them out, or state it in a level: factors: {{{axis}: {{{first}: {{{axis}: {first}}}, "
            f"{having[0]}: {{{axis}: {having[0]}, {text.replace('=', ': ', 1)}}}}}}}"
        )


def _has(names: Sequence[str]) -> str:
    return "has" if len(names) == 1 else "have"


def refuse_idle_choices(asked: Request, planned: Sequence[PlannedCell]) -> None:
    """A typed choice must be read where a stage that could read it is asked for, as `rotation` is by a
    quantize that has nothing to quantize; the default of its axis may stand unread.

    Cells that cannot work, or have no such stage, are refused one by one. Trackers, which no stage reads, act
    beside all of them.
    Raises: ConfigError naming the choice and what would have a stage read it
    """
    refused = {text for cell in planned if cell.refused for text in cell.cell.overrides}
    unread: dict[tuple[str, str], None] = {}
    for item in (*asked.plain, *asked.swept):
        axis = registry().axes.get(item.key)
        if axis is None or axis.axis == "tracker":
            continue
        default = axis.default if axis.many else (axis.default,)
        names = [name for text in item.overrides() if text not in refused for name in _names(text)]
        unread |= {(axis.axis, name): None for name in names if name not in ("none", *(default or ()))}
    asked_for: set[str] = set()
    for cell in (each.cell for each in planned if not each.refused):
        if not unread:  # as a rule after the first few cells
            return
        for stage in cell.stages:
            asked_for.update(stage_axes(stage))
            for name in {axis for axis, _ in unread} & set(cell.reads(stage)):
                for choice in cell.choices(name, stage=stage):
                    unread.pop((name, choice.method.name), None)
    for name, method in unread:
        if name in asked_for:
            raise ConfigError(
                f"{name}={method} changes nothing: no cell runs a stage that reads it "
                f"({' or '.join(readers(name))}); choose what brings one, or drop it"
            )


def refuse_idle_options(asked: Request, cells: Iterable[Cell]) -> None:
    """A typed option of a method must change something beside the other options, in some cell.

    Raises: ConfigError naming the option and why it changes nothing
    """
    typed = {item.key.lstrip("+"): item for item in (*asked.plain, *asked.swept) if "." in item.key}
    reasons: dict[str, list[str]] = {key: [] for key in typed}
    for cell in cells if typed else ():
        for choice in choices(cell):
            idle = choice.method.idle(choice.config)
            for key in typed:
                if key.startswith(own := f"{owner(choice)}."):
                    option = key.removeprefix(own).partition(".")[0]
                    reasons[key].append(idle.get(option, ""))
    for key, found in reasons.items():
        if found and all(found):
            text = f"{key}={','.join(typed[key].values)}"
            raise ConfigError(f"{text} changes nothing: {found[0]}; drop one of the two")


def refuse_shapes_of_others(asked: Request, cells: Sequence[Cell]) -> None:
    """A typed option of the model's shape must have a model to shape: one from outside has its own.

    Raises: ConfigError
    """
    if not cells or not all(cell.model_path() for cell in cells):
        return
    shapes = {f"model.{f.name}" for f in fields(model_options())}
    for item in (*asked.plain, *asked.swept):
        if item.key.lstrip("+") in shapes:
            text = f"{item.key}={','.join(item.values)}"
            raise ConfigError(
                f"{text} changes nothing: the model at {cells[0].model_path()} has a shape of its own; drop "
                "it, or build a model with one of the presets, e.g. model=mini"
            )


def refuse_unread_options(asked: Request, planned: Sequence[PlannedCell]) -> None:
    """A typed option of a stage, or of a method that a stage reads, must have that stage in some cell.

    One that decides whether its stage has anything to do is read by that (`decontaminate.enabled=false`). A
    cell that could not be put together may be the one with the stage; why it could not is said of the cell.
    Raises: ConfigError naming the option and the stage that no cell runs
    """
    typed = [item for item in (*asked.plain, *asked.swept) if "." in item.key]
    if not typed or not all(cell.keys for cell in planned):
        return
    cells = [cell.cell for cell in planned]
    acting = _acting(cells)
    runs = {stage_key(name) for _, stage in acting for name in (stage, stage.partition("@")[0])}
    open_axes = {item.key.lstrip("+").partition(".")[0] for item in typed} & {*registry().axes} - {"tracker"}
    for cell, name in acting:
        if not open_axes:  # as a rule after the first cell
            break
        open_axes -= {*cell.reads(name)}
    for item in typed:
        key = item.key.lstrip("+")
        section, _, option = (key.partition("@")[2] or key).partition(".")
        if not option or section in runs:
            continue
        asked_of = sections().get(section)
        text = f"{item.key}={','.join(item.values)} changes nothing: no cell runs"
        if asked_of is not None and f"{section}.{option}" not in _switches(asked_of, cells):
            raise ConfigError(f"{text} {asked_of}; {_bringing(asked_of, cells)}, or drop it")
        if asked_of is None and section in open_axes:
            raise ConfigError(
                f"{text} a stage that reads {section} ({' or '.join(readers(section))}); choose what brings "
                "one, or drop it"
            )


def _switches(stage: str, cells: Sequence[Cell]) -> list[str]:
    """What decides in some cell whether a stage has anything to do: an option's key, or an axis."""
    found: dict[str, None] = {}
    for cell in cells:
        if stage in cell.stages:
            registry().stage(stage).active(cast(Cell, _Noted(cell, found)))
    return list(found)


class _Noted:
    """A cell as it is, which notes the axes and the options of stages that are asked for."""

    def __init__(self, cell: Cell, found: dict[str, None]) -> None:
        self._cell, self._found = cell, found

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cell, name)

    def choice(self, axis: str, *, stage: str | None = None) -> Choice | None:
        self._found[axis] = None
        return self._cell.choice(axis, stage=stage)

    def stage_config(self, stage: str) -> Any:
        return _NotedOptions(stage_key(stage), self._cell.stage_config(stage), self._found)


class _NotedOptions:
    """Options as they are, which note what is asked of them."""

    def __init__(self, key: str, options: Any, found: dict[str, None]) -> None:
        self._key, self._options, self._found = key, options, found

    def __getattr__(self, name: str) -> Any:
        self._found[f"{self._key}.{name}"] = None
        return getattr(self._options, name)


def _bringing(stage: str, cells: Sequence[Cell]) -> str:
    """What would have a stage run."""
    if not any(stage in cell.stages for cell in cells):
        return f"add {stage} to `stages`"
    ways = [
        f"{'set' if '.' in name else 'choose'} {name}={'...' if '.' in name else 'NAME'}"
        for name in _switches(stage, cells)
    ]
    return " or ".join(ways) or f"leave {stage} something to do"


def idle_notes(asked: Request, cells: Sequence[Cell]) -> list[str]:
    """Notes on typed stages that do nothing in any cell, and on bounds of what no option is called."""
    names = {name for _, stage in _acting(cells) for name in (stage, stage.partition("@")[0])}
    bounds = dict.fromkeys(key for cell in cells for key in cell.config["at_most"])
    notes = [f"at_most.{key} bounds nothing: no option is called so" for key in bounds if not _exists(key)]
    for item in (*asked.plain, *asked.swept):
        if item.key.lstrip("+") == "stages":
            text = f"{item.key}={','.join(item.values)}"
            listed = {stage: None for cell in cells for stage in cell.stages if stage not in names}
            notes += [f"{text}: {stage} does nothing, as none of its methods is chosen" for stage in listed]
    return notes


def _acting(cells: Sequence[Cell]) -> set[tuple[Cell, str]]:
    """Cells with each stage that has something to do there."""
    return {(cell, name) for cell in cells for name in cell.stages if registry().stage(name).active(cell)}


def _exists(key: str) -> bool:
    """Whether a dotted key names an option of some method, of a stage or of the model."""
    owner, _, option = key.partition(".")
    if axis := registry().axes.get(owner):
        name, _, rest = option.partition(".")
        methods = registry().methods(owner)
        kinds: list[Any] = [m.Config for m in methods.values() if not axis.many or m.name == name]
        option = rest if axis.many else option
    else:
        stage = sections().get(owner)
        kinds = [registry().stage(stage).Config] if stage else [model_options()] if owner == "model" else []
    return any(f.name == option.partition(".")[0] for kind in kinds for f in fields(kind))
