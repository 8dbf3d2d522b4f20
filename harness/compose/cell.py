"""A cell: one composed config, typed, with an id made of what determines its result."""

from __future__ import annotations

import functools
import hashlib
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, fields
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from harness.axes import MODEL_AXES
from harness.compose.experiment import Experiment
from harness.compose.schema import EXPERIMENT_KEYS, Root, model_options, mounted_axes, stage_axes, stage_key
from harness.compose.settle import option_keys, settle, typed_keys
from harness.compose.shared import identity, once, shared
from harness.compose.typed import instance
from harness.compose.unknown import unknown_root
from harness.errors import ConfigError, ImpossibleValueError, UnknownNameError
from harness.forms import misfit
from harness.method import CellView, Choice, Problem
from harness.nodes import as_text, contained, plain
from harness.registry.known import registry
from harness.registry.modules import blaming
from harness.rng import check_seed
from harness.spec import ModelSpec

NOT_RESULT = (*EXPERIMENT_KEYS, "tracker", "device", "scale", "where_chosen", "at_most", "threads")
"""Root keys that do not determine what a cell yields; every stage states its own threads."""
MAX_THREADS = 1024
"""More than a node has; of tens of thousands libraries abort the process."""

OFFLINE = ("smoke", "mini", "real")
"""Scales that need no network, unless HF_HUB_OFFLINE says otherwise."""

ROOT_KEYS = (*(f.name for f in fields(Root)), "model")


class Cell(CellView):
    """One composed config; immutable.

    `typed` names the options that the user stated, which no scale bounds. With `keep_faults`, values that a
    method refuses make a cell that cannot run and says why, instead of an error.
    Raises: ConfigError where a value is unknown, of the wrong type or impossible
    """

    def __init__(
        self,
        node: DictConfig | dict[str, Any],
        *,
        overrides: tuple[str, ...] = (),
        experiment: str = "",
        typed: Collection[str] = (),
        keep_faults: bool = False,
    ) -> None:
        raw: Any = contained(node) if OmegaConf.is_config(node) else node
        settle(raw, typed=typed, stated={*typed, *typed_keys(overrides)})
        self.faults: tuple[Problem, ...] = ()
        """Why the values of this cell cannot be, one reason a node."""
        self._keeps_faults, self._chosen = keep_faults, experiment
        self.overrides = overrides
        if wrong := misfit(raw["stages"], list[str], "stages"):
            raise ConfigError(f"{wrong}; write e.g. 'stages=[corpus,tokenizer]'")
        self.stages = tuple(raw["stages"])
        self.seed, self.base_seed = (check_seed(int(raw[key]), key) for key in ("seed", "base_seed"))
        self.seed_from: str | None = raw["seed_from"]
        self.device: str = plain(raw["device"])
        self.threads = _threads(raw["threads"], "") or 1
        told = os.environ.get("HF_HUB_OFFLINE", str(raw["scale"] in OFFLINE))
        self.offline = told.upper() in ("1", "ON", "YES", "TRUE")
        raw["name"] = raw["name"] or experiment
        self._raw: dict[str, Any] = {key: shared(value) for key, value in raw.items()}
        stated = shared({key: self._raw[key] for key in EXPERIMENT_KEYS})
        self.experiment = once(stated, (), lambda: instance(Experiment, stated, where="experiment"))
        if self.model_path() is not None and "stages" not in typed:
            self._leave_out_building()
        self._check_stages()
        self.config = self._canonical()
        content = {key: value for key, value in self.config.items() if key not in NOT_RESULT}
        self.id = hashlib.sha256(as_text(content).encode()).hexdigest()[:16]

    def choice(self, axis: str, *, stage: str | None = None) -> Choice | None:
        """What is chosen on a single-choice axis, as `stage` sees it; None where null or `none`."""
        node = self._node(axis, stage)
        if node is None:
            return None
        where = axis if node is self._raw.get(axis) else f"{stage_key(stage or axis)}.{axis}"
        choice = self._choice(axis, node, where)
        return None if choice.method.name == "none" and choice.method.optional else choice

    def choices(self, axis: str, *, stage: str | None = None) -> tuple[Choice, ...]:
        """What is chosen on an axis, in order, as `stage` sees it; of a single-choice axis at most one."""
        if not registry().axes[axis].many:
            choice = self.choice(axis, stage=stage)
            return () if choice is None else (choice,)
        chosen = {
            name: self._choice(axis, node, f"{axis}.{name}", name) for name, node in self._raw[axis].items()
        }
        picked = self._stage_raw(stage).get(f"{axis}s") if stage is not None else None
        if picked is None:
            return tuple(chosen.values())
        for name in picked:
            if name not in chosen:
                raise UnknownNameError(what=f"chosen {axis} (in {stage}.{axis}s)", name=name, known=chosen)
        return tuple(chosen[name] for name in picked)

    def reads(self, stage: str) -> tuple[str, ...]:
        """The axes that a stage of the cell reads; nothing where the cell's choices leave it out."""
        return stage_axes(stage) if registry().stage(stage).active(self) else ()

    def makes(self, stage: str) -> str:
        """The kind of artifact that a stage of the cell makes; empty where the choices leave it out."""
        kind = registry().stage(stage)
        return kind.produces if kind.active(self) else ""

    def choices_of(self, stage: str) -> dict[str, Choice | tuple[Choice, ...]]:
        """The choices on a stage's axes; axes without a choice are left out."""
        found: dict[str, Choice | tuple[Choice, ...]] = {}
        for axis in stage_axes(stage):
            if registry().axes[axis].many:
                found[axis] = self.choices(axis, stage=stage)
            elif (choice := self.choice(axis, stage=stage)) is not None:
                found[axis] = choice
        return found

    def stage_config(self, stage: str) -> Any:
        """The typed options of a stage; `instruct@chat` takes those of `instruct` it does not state, and each
        the root's threads.
        """
        raw = self._stage_raw(stage)
        return once(raw, ("options", stage, self.threads), lambda: self._stage_options(stage, raw))

    def _stage_options(self, stage: str, raw: Mapping[str, Any]) -> Any:
        kind = registry().stage(stage).Config
        own = {f.name for f in fields(kind)}
        axes = set(stage_axes(stage))
        values = {
            key: value
            for key, value in raw.items()
            if key in own or not (key in axes or (key.endswith("s") and key[:-1] in axes))
        }
        if "threads" in own:
            values["threads"] = _threads(values.get("threads"), stage_key(stage)) or self.threads
        return instance(kind, values, where=stage_key(stage))

    def settled(self) -> dict[str, Any]:
        """What was set beside the overrides: options where a method is chosen, bounds, stages; by key."""
        keys = [*option_keys(self._raw), *self._raw["at_most"], "stages", "seed_from"]
        return {key: value for key in keys if (value := _at(self.config, key)) is not MISSING}

    def model_path(self) -> str | None:
        """Directory or name of the pretrained model; None where the cell builds its own."""
        path = self._raw["model"]["path"]
        return None if path is None else str(path)

    def unfetched(self) -> str:
        """That the model is not there, and the command of its preset that brings it; else empty."""
        path, fetch = self.model_path(), self._raw["model"]["fetch"]
        if path is None or fetch is None or Path(path).exists():
            return ""
        return f"model.path={path} is not there; `harness fetch {fetch['preset']}` brings it"

    def imports_model(self) -> bool:
        """Whether a pretrained model is imported into the composable transformer."""
        return bool(self._raw["model"]["import"])

    def spec(self) -> ModelSpec | None:
        """The model's shape after every method's `modify_spec`; None for `model=pretrained`."""
        return None if self.model_path() is not None else self._spec

    def likeness(self) -> tuple[Any, ...] | None:
        """Equal for cells that differ in their seeds alone; None where that cannot be told."""
        nodes = identity(value for key, value in self._raw.items() if key not in ("seed", "base_seed"))
        own = (self.stages, self.device, self.offline)
        return None if nodes is None else (*self._raw, *own, *nodes)

    @functools.cached_property
    def _spec(self) -> ModelSpec:
        builder = _builder()
        own = None if builder is None else self._raw.get(stage_key(builder))
        shaping = shared({key: self._raw.get(key) for key in (*registry().axes, "model")} | {"": own})
        return once(shaping, ("spec",), self._made_spec)

    def _made_spec(self) -> ModelSpec:
        tokenizer = self.choice("tokenizer")
        assert tokenizer is not None
        if tokenizer.config.vocab_size < 1:
            name = tokenizer.method.name
            raise ConfigError(f"tokenizer={name} needs tokenizer.path=DIR and tokenizer.vocab_size=ENTRIES")
        objective = self.choice("objective")
        sentinels = 0 if objective is None else int(objective.build().num_sentinels())
        options = {f.name: self._raw["model"][f.name] for f in fields(model_options())}
        options = plain(instance(model_options(), options, where="model"))
        spec = ModelSpec(vocab_size=int(tokenizer.config.vocab_size) + sentinels, **options)
        builder = _builder()
        for axis in registry().axes:
            stage = builder if builder is not None and axis in stage_axes(builder) else None
            for choice in self.choices(axis, stage=stage):
                with blaming(f"modify_spec of {axis}={choice.method.name} ({choice.method.__module__})"):
                    spec = choice.method.modify_spec(choice.config, spec)
                    if not isinstance(spec, ModelSpec):
                        raise TypeError(f"{spec!r} is no ModelSpec")
        return spec

    def _node(self, axis: str, stage: str | None) -> Mapping[str, Any] | None:
        """The raw node of a single-choice axis: the stage's own where it has one, else the root's."""
        if stage is not None:
            own = self._stage_raw(stage).get(axis)
            if isinstance(own, Mapping) and "method" in own:
                return own
        node = self._raw.get(axis)
        assert node is None or isinstance(node, Mapping)
        return node or None

    def _stage_raw(self, stage: str) -> Mapping[str, Any]:
        base = stage.partition("@")[0]
        registry().stage(base)
        values = self._raw.get(stage_key(base)) or {}
        return values if base == stage else {**values, **(self._raw.get(stage_key(stage)) or {})}

    def _choice(self, axis: str, node: Any, where: str, name: str | None = None) -> Choice:
        if not isinstance(node, Mapping) or "method" not in node:
            chosen = f"override /{axis}: [{name}]" if name else f"{axis}=<method>"
            raise ConfigError(f"{where} has options but no method; choose it too ({chosen})")
        return once(node, ("choice", axis), lambda: self._made_choice(axis, node, where))

    def _made_choice(self, axis: str, node: Mapping[str, Any], where: str) -> Choice:
        method = registry().get(axis, str(node["method"]))
        values = {key: value for key, value in node.items() if key != "method"}
        return Choice(axis=axis, method=method, config=instance(method.Config, values, where=where))

    def _check_stages(self) -> None:
        for stage in self.stages:
            registry().stage(stage)
        twice = {stage for stage in self.stages if self.stages.count(stage) > 1}
        if twice:
            raise ConfigError(
                f"stages lists {sorted(twice)} twice; name the second use, e.g. 'instruct@chat'"
            )
        if self.seed_from is not None and self.seed_from not in self.stages:
            raise UnknownNameError(what="stage (in seed_from)", name=self.seed_from, known=self.stages)
        if self.model_path() is None and self.imports_model():
            text = "model.import=true changes nothing: it imports the model at model.path, and none is named"
            self._fault("model", ImpossibleValueError(text))
        if self.model_path() == "":
            text = "model=pretrained needs model.path=DIR (a directory, or a name on the hub)"
            self._fault("model", ImpossibleValueError(text))
        pretrained = self.model_path() is not None
        if pretrained and not self.imports_model():
            chosen = [axis for axis in MODEL_AXES if self._raw.get(axis)]
            if chosen == [*MODEL_AXES]:
                text = (
                    f"model.path={self.model_path()} stands beside a model that is built here; write "
                    "model=pretrained model.path=..., which leaves its methods out, or model.import=true"
                )
                self._fault("model", ImpossibleValueError(text))
            elif chosen:
                node, ours = self._raw[chosen[0]], "into harness's own transformer, where it applies"
                given = f"{chosen[0]}={node['method']}" if "method" in node else f"{chosen[0]}.{min(node)}"
                text = (
                    f"{given} cannot change the pretrained model {self.model_path()}; drop it, or set "
                    f"model.import=true to import the checkpoint {ours}"
                )
                self._fault(chosen[0], ImpossibleValueError(text))

    def _canonical(self) -> dict[str, Any]:
        """The whole config, resolved and plain; every node has passed its own type."""
        config: dict[str, Any] = {}
        stages = {stage_key(stage): stage for stage in (*registry().stages, *self.stages)}
        for key, value in self._raw.items():
            if key in registry().axes:
                config[key] = self._checked(key, partial(self._canonical_axis, key))
            elif key in stages:
                config[key] = self._checked(key, partial(self._canonical_stage, stages[key]))
            elif key == "model":
                config[key] = once(value, ("model",), partial(_canonical_model, value))
            elif key in ROOT_KEYS:
                config[key] = once(value, ("plain",), partial(plain, value))
            else:
                known = [*ROOT_KEYS, *registry().axes, *stages]
                raise unknown_root(key, known, experiment=self._chosen, overrides=self.overrides)
        return config

    def _leave_out_building(self) -> None:
        """Drop the stages that would build what a pretrained model brings: its weights and its tokenizer.

        Seeds that were to vary from one of them on vary the stage after it.
        """
        kept = tuple(stage for stage in self.stages if not _builds(stage))
        if self.seed_from in self.stages and self.seed_from not in kept:
            later = self.stages[self.stages.index(self.seed_from) :]
            self.seed_from = next((stage for stage in later if stage in kept), None)
        self.stages = kept
        self._raw |= {"stages": shared(list(kept)), "seed_from": self.seed_from}

    def _checked(self, key: str, canonical: Callable[[], Any]) -> Any:
        """A canonical node; where its values are impossible and faults are kept, the node as it was given."""
        try:
            return canonical()
        except ImpossibleValueError as error:
            self._fault(key, error)
            return plain(self._raw[key])

    def _fault(self, where: str, error: ImpossibleValueError) -> None:
        if not self._keeps_faults:
            raise error
        self.faults += (Problem(where=where, message=str(error)),)

    def _canonical_axis(self, axis: str) -> Any:
        node = self._raw.get(axis)
        if registry().axes[axis].many:
            return once(
                node,
                ("canonical", axis),
                lambda: {choice.method.name: _with_name(choice) for choice in self.choices(axis)},
            )
        if not node:
            return None
        return once(node, ("canonical", axis), lambda: _with_name(self._choice(axis, node, axis)))

    def _canonical_stage(self, stage: str) -> dict[str, Any]:
        for axis in mounted_axes(stage):
            if registry().axes[axis].many:
                self.choices(axis, stage=stage)  # refuses a name that is not chosen
        what = ("canonical", stage, self.threads)
        return once(self._stage_raw(stage), what, lambda: self._canonical_options(stage))

    def _canonical_options(self, stage: str) -> dict[str, Any]:
        content: dict[str, Any] = plain(self.stage_config(stage))
        raw = self._stage_raw(stage)
        mounted = mounted_axes(stage)
        for axis in stage_axes(stage):
            own = raw.get(axis)
            if isinstance(own, Mapping) and "method" in own:
                content[axis] = _with_name(self._choice(axis, own, f"{stage}.{axis}"))
            elif own is not None and axis in mounted:
                key = f"{stage_key(stage)}.{axis}"
                named = own if isinstance(own, str) else "NAME"
                raise ConfigError(f"{key}={plain(own)} chooses no {axis}; write {axis}@{key}={named}")
        for axis in mounted:
            if registry().axes[axis].many:
                content[f"{axis}s"] = plain(raw.get(f"{axis}s"))
            else:
                content.setdefault(axis, None)
        return content


def _builder() -> str | None:
    """The stage that builds a model: it reads the axes that shape one."""
    return next((name for name in registry().stages if MODEL_AXES[0] in stage_axes(name)), None)


def _at(config: Any, key: str) -> Any:
    """The value of a dotted key; MISSING where this cell has no such option."""
    for name in key.split("."):
        if not isinstance(config, Mapping) or name not in config:
            return MISSING
        config = config[name]
    return config


def _builds(stage: str) -> bool:
    """Whether a stage makes a model from nothing, or a tokenizer for it."""
    kind = registry().stages.get(stage.partition("@")[0])
    if kind is None:
        return False  # refused by name, with all stages that exist
    return kind.produces == "tokenizer" or (kind.produces == "model" and "model" not in kind.needs)


def _threads(value: Any, where: str) -> int | None:
    """A number of threads; None where none is stated.

    Raises: ConfigError for a number that cannot work
    """
    if isinstance(value, int) and not 1 <= value <= MAX_THREADS:
        name = f"{where}.threads" if where else "threads"
        raise ConfigError(
            f"{name}={value} must lie between 1 and {MAX_THREADS}; it is the same on every machine, as a key "
            "is"
        )
    return value  # type: ignore[no-any-return]


def _canonical_model(node: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in plain(node).items() if key != "fetch"}


def _with_name(choice: Choice) -> dict[str, Any]:
    return {"method": choice.method.name, **plain(choice.config)}
