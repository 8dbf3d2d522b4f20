"""What every method is: a named choice on an axis, its options, and the points it may act through."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar

from harness.errors import ConfigError, PluginError
from harness.paths import files_of
from harness.surroundings import kept

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn

    from harness.spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Why a cell cannot run, found before anything is spent."""

    where: str
    """The config key at fault, e.g. `attention.num_kv_heads`."""
    message: str
    """What is wrong and what would work."""
    fatal: bool = True
    """Whether the cell is refused (True) or merely footnoted (False)."""

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One scalar a method adds to the loss of a training step."""

    name: str
    value: Tensor
    """Mean over the tokens of the micro-batch, already weighted."""


MODEL = "model_ref"
"""Key of a field's metadata that says: it names a model."""


def model_ref(default: str = "") -> Any:
    """A Config field that names a model: `path:DIR`, `hub:name@revision`, `cell:axis=name,key=value`
    (this cell with those overrides), or empty for none. The plan turns it into graph nodes and hands
    the artifact to the stage as an input called `<axis>.<field>`.
    """
    return field(default=default, metadata={MODEL: True})


def model_refs(config: Any) -> frozenset[str]:
    """The options of a Config, or of its class, that name models."""
    return frozenset(option.name for option in fields(config) if MODEL in option.metadata)


SIGNED = "signed"
"""Key of a field's metadata that says: it takes numbers below zero."""


def signed(default: float) -> Any:
    """A Config field of a number that may lie below zero although its default does not.

    Every other number is refused below zero, by the plan, as one that is not finite is.
    """
    return field(default=default, metadata={SIGNED: True})


def check_limits(config: Any, where: str, *options: str, null: str = "no limit") -> None:
    """Refuse a count that is neither null nor at least 1.

    `where` is the config key that holds the options, e.g. `corpus`; `null` says what null stands for.
    Raises: ConfigError
    """
    for option in options:
        value = getattr(config, option)
        if value is not None and value < 1:
            raise ConfigError(f"{where}.{option}={value} must be at least 1, or null for {null}")


def check_counts(config: Any, where: str, *options: str) -> None:
    """Refuse a count below 1; `where` is the config key that holds the options, e.g. `generate`.

    Raises: ConfigError
    """
    for option in options:
        value = getattr(config, option)
        if value < 1:
            raise ConfigError(f"{where}.{option}={value} must be at least 1")


def check_distinct(config: Any, where: str, *options: str) -> None:
    """Refuse lists that name a value twice; `where` is the config key that holds the options.

    Raises: ConfigError
    """
    for option in options:
        values = list(getattr(config, option))
        if len(set(values)) < len(values):
            twice = next(value for value in values if values.count(value) > 1)
            raise ConfigError(f"{where}.{option}={values} names {twice} twice; name it once")


class Method:
    """A named choice on an axis.

    A subclass in `harness/axes` fixes the axis and its contract; a plugin's subclass names a method,
    nests a frozen `Config`, and implements the contract. Methods act only through what is published
    here and on their axis; each point is called for every chosen method in the order of the axes.
    """

    axis: ClassVar[str]
    """The axis, which is also the Hydra config group."""
    name: ClassVar[str]
    """The word on the command line."""
    many: ClassVar[bool] = False
    """Whether the axis takes an ordered list of methods (set by the axis)."""
    default: ClassVar[str | tuple[str, ...] | None] = None
    """The method chosen when nothing else is said (set by the axis); a tuple where `many`."""
    optional: ClassVar[bool] = False
    """Whether the axis has a `none`, provided by the core, which removes its stage (set by the axis)."""
    changes: ClassVar[frozenset[str]] = frozenset()
    """Resources this method writes, e.g. `scores`, `rotary`, `weights`, `embedding_gradient`."""
    moves_facts: ClassVar[frozenset[str]] = frozenset()
    """Measured facts that choosing it or its options is bound to move (mostly set by the axis), beside those
    it `changes`: a report holds them against no level that does. `counts` stands for all numbers of tokens,
    bytes, steps and documents."""
    after: ClassVar[frozenset[str]] = frozenset()
    """Resources it may write although another method did so before it."""
    requires: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that some other chosen method must provide, e.g. `rotary`."""
    provides: ClassVar[frozenset[str]] = frozenset()
    """Capabilities this method offers to others, e.g. `rotary`, `packed_weights`."""
    conflicts: ClassVar[frozenset[str]] = frozenset()
    """Capabilities that no other chosen method may provide."""
    stages: ClassVar[tuple[str, ...]] = ()
    """Stages that read an axis which a plugin adds (set by the axis); built-in stages name their own."""
    extra: ClassVar[str | None] = None
    """The optional dependency group that carries its library, if any."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Modules of `extra` without which it does not run at all; the plan refuses it where one is absent."""
    abstract: ClassVar[bool] = True
    """True on contracts, set to False on anything that states a `name`."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options; a string under each field gives its meaning and unit."""

    config: Config

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.abstract = "name" not in cls.__dict__
        where = f"{cls.__module__}.{cls.__qualname__}"
        config = cls.__dict__.get("Config")
        if config is not None:
            parents = [base.Config for base in cls.__mro__[1:] if issubclass(base, Method)]
            if not all(issubclass(config, parent) for parent in parents):
                raise PluginError(
                    f"{where}.Config must inherit {parents[0].__qualname__}, "
                    "so that the options of its axis stay available"
                )
            parameters = config.__dict__.get("__dataclass_params__")
            if parameters is None or not parameters.frozen:
                raise PluginError(
                    f"{where}.Config must be decorated with @dataclass(frozen=True, kw_only=True)"
                )
        if not cls.abstract and not getattr(cls, "axis", None):
            raise PluginError(f"{where} states a name but its class has no axis; subclass an axis")

    def __init__(self, config: Config | None = None) -> None:
        self.config = config if config is not None else self.Config()

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Problems of this choice within a whole cell, found by the plan before anything runs.

        `meta_model` is the cell's model on the meta device (shapes, no data), or None where the cell
        builds no model of its own.
        """
        return ()

    @classmethod
    def code_of(cls, config: Any) -> Iterable[str]:
        """Where the code stands that it runs; a method made of others names theirs too."""
        return (cls.__module__,)

    @classmethod
    def reads(cls, config: Any) -> Mapping[str, Path]:
        """Files that its result rests on besides those its options name (`path_ref`), by names that do not
        say where they lie; they enter the key too.

        For what comes with the machine, as the standard library's sources do, or what a named file names.
        Raises: DataError where they are not there
        """
        return {}

    @classmethod
    def idle(cls, config: Any) -> Mapping[str, str]:
        """Options that change nothing beside the others, each with the reason in words; the plan refuses them
        where they were typed.
        """
        return {}

    @classmethod
    def check_files(cls, config: Any) -> None:
        """Read the first entries of the files that its options name, as it reads them when it runs.

        The plan asks it of files that are there, and remembers by their content what was read without fault.
        Raises: DataError saying which entry is not of the format, and what would be
        """

    @classmethod
    def files(cls, config: Any, option: str) -> list[Path]:
        """The files that an option declared with `path_ref` names, in alphabetical order; none for empty.

        Raises: DataError where they are not there
        """
        return files_of(config, option, where=f"{cls.axis}.{cls.name}" if cls.many else cls.axis)

    @classmethod
    def modify_spec(cls, config: Any, spec: ModelSpec) -> ModelSpec:
        """The spec that the transformer is built from, changed by this method."""
        return spec

    def modify_model(self, model: nn.Module) -> nn.Module:
        """The model, changed in place or wrapped, before the first step of a stage that trains."""
        return model

    def loss_terms(self, outputs: Mapping[str, Any], batch: Mapping[str, Any]) -> list[LossTerm]:
        """Scalars to add to the loss of a micro-batch."""
        return []

    def rate(self, name: str, parameter: nn.Parameter) -> float:
        """Factor on the stage's learning rate with which a trained parameter learns."""
        return 1.0

    def on_step(self, step: int, total_steps: int) -> None:
        """What step comes, counted from 0, and how many the stage takes by what is spent so far."""

    def on_gradients(self, model: nn.Module, step: int) -> dict[str, float | Tensor]:
        """Act on the accumulated gradients before the optimizer's step; returns facts to log."""
        return {}

    def training_state(self) -> dict[str, Any]:
        """What it gathered as it acted on training, for a checkpoint: tensors, plain values, dicts."""
        return {}

    def load_training_state(self, state: dict[str, Any]) -> None:
        """Go on from what `training_state` gave."""

    def prompt(self, text: str) -> str:
        """The prompt, changed by this method (control tokens, prefixes)."""
        return text

    @classmethod
    def summary(cls) -> str:
        """First sentence of the class's docstring."""
        return summary(cls)

    @classmethod
    def labelled(cls, label: str) -> str | None:
        """A labelled line of the docstring, e.g. `labelled("Paper")`."""
        for line in (cls.__doc__ or "").splitlines():
            head, separator, rest = line.strip().partition(":")
            if separator and head == label:
                return rest.strip()
        return None


def summary(cls: type[Any]) -> str:
    """First sentence of a class's docstring."""
    first = inspect.cleandoc(cls.__doc__ or "").partition("\n\n")[0]
    return re.split(r"(?<=[^.][^.g\s]\.) ", " ".join(first.split()))[0]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A chosen method with its options."""

    axis: str
    method: type[Method]
    config: Any

    def build(self, *args: Any) -> Any:
        """The method's instance; modules take (spec, layer) after their options."""
        with kept(f"when {self.axis}={self.method.name} is built"):
            return self.method(self.config, *args)


class CellView:
    """What a method may know of its cell: the choices on all axes and the stages.

    Implemented by `harness.compose.Cell`; declared here so that contracts can name it.
    """

    stages: tuple[str, ...]
    device: str
    """`cpu`, `cuda`, or `auto`, which takes CUDA where there is one."""
    offline: bool
    """Whether nothing may come from a network, as the scale promises or the environment says."""

    def choice(self, axis: str, *, stage: str | None = None) -> Choice | None:
        """What is chosen on a single-choice axis, as `stage` sees it; None where absent or `none`."""
        raise NotImplementedError

    def choices(self, axis: str, *, stage: str | None = None) -> tuple[Choice, ...]:
        """What is chosen on a list axis, in order, as `stage` sees it."""
        raise NotImplementedError

    def reads(self, stage: str) -> tuple[str, ...]:
        """The axes that a stage reads; nothing where it is not `active`, which itself may not ask this."""
        raise NotImplementedError

    def makes(self, stage: str) -> str:
        """The kind of artifact that a stage of the cell makes; empty where the choices leave it out."""
        raise NotImplementedError

    def spec(self) -> ModelSpec | None:
        """The model's shape after every method's `modify_spec`; None for `model=pretrained`."""
        raise NotImplementedError
