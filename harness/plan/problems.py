"""Why a cell cannot run, found before anything is spent."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from harness.axes import MODEL_AXES
from harness.compose import Cell
from harness.compose.schema import readers, stage_axes
from harness.errors import ConfigError, DataError, IncompatibleError
from harness.method import Choice, Method, Problem
from harness.model import config_file
from harness.model.gguf import gguf_config, is_gguf
from harness.plan.files import missing
from harness.plan.training_problems import untrainable
from harness.registry.known import registry
from harness.registry.modules import blaming

OUR_FAMILY = "harness"
"""`model_type` of our own checkpoints."""
_SHAPES: dict[str, Any] = {}
"""Models of shapes without data, by what determines them."""
_OF_CELL: WeakKeyDictionary[Cell, Any] = WeakKeyDictionary()
"""The one of a cell, which is asked for at every of its stages."""


def problems(cell: Cell) -> list[Problem]:
    """Everything that speaks against a cell: idle choices, capabilities, each method's and stage's `check`.

    Imports torch at most (no transformers, but for a checkpoint); the meta model it hands to `check` holds
    shapes and no data.
    """
    chosen = list(choices(cell))
    active = [stage for stage in cell.stages if registry().stage(stage).active(cell)]
    found = [*_libraries(chosen), *_idle(cell), *_capabilities(cell, chosen), *_writers(chosen)]
    found += missing(cell, chosen, active)
    for stage in active:
        found += untrainable(cell, stage)
    checking = [choice for choice in chosen if _has_check(choice.method)]
    if cell.model_path() is None:
        try:
            model = shapes_of(cell) if checking else None
            cell.spec()
        except (ConfigError, IncompatibleError) as error:
            return [*found, Problem(where="model", message=str(error))]
    elif absent := cell.unfetched():
        return [*found, Problem(where="model.path", message=absent)]
    else:
        unknown = list(_family(cell))
        found += unknown
        try:
            model = checkpoint_shapes(cell) if checking and not unknown else None
        except (ConfigError, DataError, IncompatibleError) as error:
            return [*found, Problem(where="model.path", message=str(error))]
    for choice in checking:
        with blaming(f"check of {choice.axis}={choice.method.name} ({choice.method.__module__})"):
            found.extend(_stated(choice.method.check(choice.config, cell, model)))
    for stage in active:
        maker = registry().stage(stage)
        with blaming(f"check of stage {stage} ({maker.__module__})"):
            found.extend(_stated(maker.check(cell, stage, model)))
    return found


def _stated(found: Iterable[Problem]) -> Iterator[Problem]:
    for problem in found:
        if not isinstance(problem, Problem):
            raise TypeError(f"{problem!r} is no Problem")
        yield problem


def choices(cell: Cell) -> Iterator[Choice]:
    """Every distinct choice that an active stage of the cell reads, and its trackers, by axis."""
    seen: dict[str, list[Choice]] = {axis: [] for axis in registry().axes}
    for stage in cell.stages:
        if registry().stage(stage).active(cell):
            for axis in stage_axes(stage):
                seen[axis] += [c for c in cell.choices(axis, stage=stage) if c not in seen[axis]]
    seen["tracker"] = list(cell.choices("tracker"))  # no stage reads it, and yet it may not work
    for found in seen.values():
        yield from found


def _has_check(method: type[Method]) -> bool:
    return any("check" in vars(base) for base in method.__mro__ if base is not Method)


def shapes_of(cell: Cell) -> Any:
    """The cell's own model without data, once for all cells of that shape; None where it brings one.

    Raises: ConfigError, IncompatibleError where shape and methods do not fit
    """
    if cell not in _OF_CELL:
        _OF_CELL[cell] = _shapes_of(cell)
    return _OF_CELL[cell]


def _shapes_of(cell: Cell) -> Any:
    from harness.model import meta_model

    spec = cell.spec()
    shape = {axis: choice for axis in MODEL_AXES if (choice := cell.choice(axis)) is not None}
    if spec is None or len(shape) != len(MODEL_AXES):
        return None
    name = f"{spec} {shape}"
    if name not in _SHAPES:
        _SHAPES[name] = meta_model(spec, shape)
    return _SHAPES[name]


def checkpoint_shapes(cell: Cell) -> Any:
    """The pretrained model of a cell without data; None for a hub name, and where its code is its own.

    Raises: DataError where it is no causal model, ConfigError where an import does not fit
    """
    from harness.model.checkpoint import read_config

    path = Path(str(cell.model_path()))
    file = path / "config.json"
    config = read_config(path) if file.is_file() or is_gguf(path) else {"auto_map": {}}
    if "auto_map" in config:
        return None
    shape = {axis: choice for axis in MODEL_AXES if (choice := cell.choice(axis)) is not None}
    replace = shape if cell.imports_model() else None
    name = f"{path} {config} {replace}"
    if name not in _SHAPES:
        _SHAPES[name] = _meta_checkpoint(path, replace)
    return _SHAPES[name]


def _meta_checkpoint(path: Path, replace: dict[str, Choice] | None) -> Any:
    """What `config.json` describes; `replace` holds the methods that an import puts in place of its own."""
    import torch

    from harness.model.checkpoint import describe
    from harness.model.choices import to_plain
    from harness.model.hf import HarnessConfig, HarnessForCausalLM

    if replace is not None:
        spec, methods = describe(path)
        choices = {**methods, **replace}
        with torch.device("meta"):
            return HarnessForCausalLM(HarnessConfig.of(spec, to_plain(choices)), choices=choices)
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(_hf_config(path))
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"model.path={path} cannot be read as a causal model: {error}") from error


def _hf_config(path: Path) -> Any:
    from transformers import AutoConfig

    if is_gguf(path):
        config = gguf_config(path)
        return AutoConfig.for_model(config.pop("model_type"), **config)
    return AutoConfig.from_pretrained(path)


def _family(cell: Cell) -> Iterator[Problem]:
    """A checkpoint directory whose family transformers cannot load; an import names the families it knows."""
    folder = Path(str(cell.model_path()))
    if cell.imports_model() or not (folder / config_file.NAME).is_file():
        return
    try:
        config = config_file.read(folder)
    except DataError as error:
        yield Problem(where="model.path", message=str(error))
        return
    name = config.get("model_type")
    if name is None:
        yield Problem(where="model.path", message=f"{folder}: its config.json states no model_type")
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if name in (OUR_FAMILY, *CONFIG_MAPPING_NAMES) or "auto_map" in config:
        return
    close = difflib.get_close_matches(name, CONFIG_MAPPING_NAMES, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    yield Problem(
        where="model.path",
        message=f"{folder} is a checkpoint of the family '{name}', which transformers does not know.{hint}",
    )


def _idle(cell: Cell) -> Iterator[Problem]:
    """Choices other than the default that no stage of this cell reads: they would change nothing."""
    read = {axis for stage in cell.stages for axis in stage_axes(stage)}
    for name, axis in registry().axes.items():
        defaults = axis.default if isinstance(axis.default, tuple) else (axis.default,)
        for choice in cell.choices(name) if name not in read and name != "tracker" else ():
            if choice.method.name not in defaults:
                stages = [stage for stage in readers(name) if stage not in cell.stages]
                yield Problem(
                    where=name,
                    message=f"{name}={choice.method.name} changes nothing: no stage reads it; "
                    f"add one of {stages} to `stages`, or drop it",
                )


def _capabilities(cell: Cell, chosen: list[Choice]) -> Iterator[Problem]:
    """`requires` that no other choice provides, and `conflicts` with what one provides."""
    unknown = _of_any_model() if cell.model_path() is not None and not cell.imports_model() else frozenset()
    for choice in chosen:
        others = [other for other in chosen if other is not choice]
        provided = frozenset().union(*(other.method.provides for other in others))
        for word in sorted(choice.method.requires - provided - unknown):
            able = " or ".join(f"{m.axis}={m.name}" for m in registry().all() if word in m.provides)
            lacking = sorted({f"{m.axis}={m.name}" for m in _rivals(word, others)})
            yield Problem(
                where=choice.axis,
                message=f"{_name(choice)} requires '{word}', "
                f"which {' and '.join(lacking) or 'no chosen method'} does not provide; "
                f"use {able or 'a plugin that does'}",
            )
        for other in others:
            for word in sorted(choice.method.conflicts & other.method.provides):
                yield Problem(
                    where=choice.axis,
                    message=f"{_name(choice)} cannot work with {_name(other)} ('{word}'); change one of them",
                )


def _rivals(capability: str, others: list[Choice]) -> Iterator[type[Method]]:
    """Chosen methods of the axes on which the capability could have been had."""
    axes = {method.axis for method in registry().all() if capability in method.provides}
    for other in others:
        if other.axis in axes:
            yield other.method


def _of_any_model() -> frozenset[str]:
    """Capabilities that depend on the model's architecture, which a pretrained model may have or not."""
    shaping = [method for axis in MODEL_AXES for method in registry().methods(axis).values()]
    return frozenset().union(*(method.provides for method in shaping))


def _libraries(chosen: list[Choice]) -> Iterator[Problem]:
    """Methods whose libraries are not installed, with the command that brings them."""
    for method in dict.fromkeys(choice.method for choice in chosen):
        absent = next((module for module in method.libraries if find_spec(module) is None), None)
        if absent is not None:
            package = registry().source(method).package
            carrier = f"'{package}[{method.extra}]'" if method.extra else absent
            yield Problem(
                where=method.axis,
                message=f"{method.axis}={method.name} needs the package '{absent}', which is not installed; "
                f"pip install {carrier}",
            )


def _writers(chosen: list[Choice]) -> Iterator[Problem]:
    """Two methods that write one resource, where neither says that it comes after the other."""
    for i, first in enumerate(chosen):
        for second in chosen[i + 1 :]:
            if first.method is second.method:
                continue  # one method in two stages
            shared = first.method.changes & second.method.changes
            for word in sorted(shared - second.method.after - first.method.after):
                yield Problem(
                    where=second.axis,
                    message=f"{_name(first)} and {_name(second)} both change '{word}'; drop one of them, or "
                    f"state `after = {{'{word}'}}` in the class of the one that may do so after the other",
                )


def _name(choice: Choice) -> str:
    return f"{choice.axis}={choice.method.name}"
