"""A stage: a pure function of (options, inputs, seed) to an artifact. The contract of `harness_stages`."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from harness.errors import PluginError
from harness.method import Choice, Problem, model_refs
from harness.rng import Purpose, stream_seed

if TYPE_CHECKING:
    from torch import nn

    from harness.compose import Cell
    from harness.spec import ModelSpec
    from harness.store.artifacts import Artifact
    from harness.training.meeting import Meeting

Choices = Mapping[str, Choice | tuple[Choice, ...]]
"""What was chosen on each of a stage's axes; a tuple where the axis takes several."""


class Stage:
    """One step of a cell. It is handed only the nodes of its `axes`, and its key is made of them.

    State: none between runs; `run` may keep checkpoints in `work.checkpoints` and resume from them
    """

    name: ClassVar[str]
    after: ClassVar[tuple[str, ...]] = ()
    """Stages that stand before it in the default order, where they are installed."""
    before: ClassVar[tuple[str, ...]] = ()
    """Stages that stand behind it in the default order, where they are installed."""
    axes: ClassVar[tuple[str, ...]] = ()
    """Axes whose choices enter the key and are handed to `run`."""
    needs: ClassVar[tuple[str, ...]] = ()
    """Kinds of artifact it reads; the latest of each kind is its input."""
    may_need: ClassVar[tuple[str, ...]] = ()
    """Kinds it reads where an earlier stage made one."""
    produces: ClassVar[str]
    """Kind of artifact it makes: documents, tokenizer, tokens, model, reward, generations, evaluation."""
    seeded: ClassVar[bool] = True
    """Whether the result depends on the seed; `draws` says it of a part where it follows from the methods."""

    full_windows: ClassVar[bool] = False
    """Whether it trains on whole windows of text, none of them padded; estimates read this and the next."""
    splits_windows: ClassVar[bool] = False
    """Whether its windows become sources and targets where the model has an encoder."""
    scores_answers: ClassVar[bool] = False
    """Whether its loss reads the logits of labelled positions alone, not those of all positions."""

    decontaminates: ClassVar[str] = ""
    """Its option that says whether what shares text with test items is left out; a report says where it is
    off, and of a stage that makes documents where a cell does without. The fact `decontaminated` holds what
    it `seen` and `dropped`, of which n-grams (`ngram`), and how often `by_source`."""
    moves_facts: ClassVar[tuple[tuple[str, str], ...]] = ()
    """(option, measured fact) that the option is bound to move: a report holds the fact against no level that
    sets it. `counts` stands for all numbers of tokens, bytes, steps and documents."""

    trial: ClassVar[tuple[str, ...]] = ()
    """Overrides with which conformance tries it on a small model, where it makes a model of a model."""

    @dataclass(frozen=True, kw_only=True)
    class Config:
        """Options of the stage itself, mounted at `<stage>.`; a string under each field explains it."""

        threads: int | None = None
        """Processor threads it computes with on a CPU; null takes the root's `threads`. Sums depend on how
        they are split, so the number is in the key and follows neither from the machine nor from what else
        runs."""

    @classmethod
    def active(cls, cell: Cell) -> bool:
        """Whether this cell has the stage at all; an axis set to `none` removes its stage."""
        return True

    @classmethod
    def parts(cls, cell: Cell) -> Sequence[str]:
        """Names of independent parts, each an artifact of its own (`evaluate` has one per task)."""
        return ("",)

    @classmethod
    def draws(cls, part: str, choices: Choices) -> bool:
        """Whether a part depends on the seed: only then is it in the key, and `Work.seed` other than 0."""
        return cls.seeded

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        """The choices one part depends on; they enter its key and are handed to `run`."""
        return choices

    @classmethod
    def surroundings(cls, part: str, choices: Choices) -> dict[str, str]:
        """What else enters the key of a part: the hardware, for a speed."""
        return {}

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """What speaks against this stage of a cell, found by the plan; `stage` is its name in the cell.

        `meta_model` holds the shapes of the model that the cell builds; None for a pretrained one.
        """
        return ()

    @abstractmethod
    def run(self, work: Work) -> dict[str, Any]:
        """Write the artifact's files into `work.out`; returns measured facts (JSON).

        Facts hold what comparability rests on (tokens, steps, bytes, FLOPs, ...) and, under `effects`,
        the proof of what each method changed.
        """
        raise NotImplementedError


class _Declared(dict[str, Any]):
    """What a stage is handed by name. What it declared may be absent, and be asked for; any other name is
    refused in its author's words, whichever way it is asked for.
    """

    def __init__(self, given: Mapping[str, Any], declared: Callable[[str], bool], refusal: str) -> None:
        super().__init__(given)
        self._declared = declared
        self._refusal = refusal

    def __missing__(self, name: str) -> NoReturn:
        raise PluginError(self._refusal.format(name))

    def __contains__(self, name: object) -> bool:
        if super().__contains__(name):
            return True
        if isinstance(name, str) and not self._declared(name):
            self.__missing__(name)
        return False

    def get(self, name: str, default: Any = None) -> Any:
        """What it has under a declared name, else `default`."""
        known = name in self  # refused where it is not declared
        return super().get(name, default) if known else default


@dataclass(kw_only=True)
class Work:
    """Everything a stage may touch while it runs; of its cell nothing else, as that would escape the key."""

    stage: str
    """Name in the cell's order, suffix included (`instruct@chat`)."""
    maker: type[Stage]
    """Its class, which says what it may ask for."""
    part: str
    config: Any
    """The stage's own typed Config."""
    choices: Choices
    """What was chosen on each of the stage's axes, as `Stage.narrow` left it."""
    inputs: Mapping[str, Artifact]
    """Input artifacts by kind; a ModelRef's artifact under the option's key (`judge.model`)."""
    seed: int
    """0 where the stage does not draw."""
    device: str
    """`cpu` or `cuda:<i>`."""
    out: Path
    """Empty directory that becomes the artifact when `run` returns."""
    checkpoints: Path
    """Directory that survives a kill and is handed to the next attempt at the same key."""
    load: Callable[[str], Artifact]
    """The artifact of a key (a model's base, say)."""
    axes: Collection[str] = ()
    """The axes that plugins add to those of its class."""
    refers: Callable[[str], Collection[str]] = lambda axis: ()
    """The options of an axis, whichever of its methods has them, that refer to models; those of the chosen
    methods need not be among them."""
    model_path: str | None = None
    """Directory or name of the pretrained model that the cell begins with."""
    spec: Callable[[], ModelSpec | None] = field(default=lambda: None)
    """The shape of the model that the cell builds; None for a pretrained one."""
    cache: Path | None = None
    """A folder of the store for what many stages would compute alike; all of it can be computed again."""
    on_step: Callable[[int, dict[str, float]], None] = field(default=lambda step, facts: None)
    """Reports a logging step to progress bar and trackers."""
    on_progress: Callable[[int, dict[str, float]], None] = field(default=lambda done, facts: None)
    """Reports how many documents or requests are done to the progress bar alone: no tracker hears of it, no
    artifact holds it."""
    meeting: Meeting | None = None
    """Where the nodes of this stage meet, where a launcher has placed it on several."""

    def __post_init__(self) -> None:
        self.inputs = _Declared(
            self.inputs,
            self._may_read,
            f"stage {self.stage} has no input '{{}}': name the kind in `needs`, or in `may_need` and ask "
            "whether it is among `work.inputs`; a model has the name of the option that refers to it, "
            "which its Config declares with `model_ref`",
        )
        self.choices = _Declared(
            self.choices,
            self._may_choose,
            f"stage {self.stage} has no choice of '{{}}': name the axis in `axes`, so that it enters the "
            "key, and ask whether it is among `work.choices` where it may be none",
        )

    def _may_choose(self, axis: str) -> bool:
        return axis in self.maker.axes or axis in self.axes

    def _may_read(self, name: str) -> bool:
        """A kind it declares, or a model that an option of the stage or of an axis refers to."""
        owner, dot, option = name.rpartition(".")
        if not dot:
            return name in self.maker.needs or name in self.maker.may_need
        axis = owner.partition(".")[0]
        if not self._may_choose(axis):
            return owner.startswith(self.maker.name) and option in model_refs(self.maker.Config)
        chosen = self.choices.get(axis) or ()
        choices = chosen if isinstance(chosen, tuple) else (chosen,)
        own = any(option in model_refs(choice.config) for choice in choices)
        return own or option in self.refers(axis)

    def stream(self, purpose: Purpose) -> int:
        """Seed of this stage's stream for `purpose`; equal for methods compared at one seed."""
        return stream_seed(seed=self.seed, stage=self.stage, purpose=purpose)

    def one(self, axis: str) -> Choice:
        """The choice on a single-choice axis."""
        choice = self.choices[axis]
        if isinstance(choice, tuple):
            raise PluginError(f"stage {self.stage}: {axis} takes several; ask `work.several('{axis}')`")
        return choice

    def several(self, axis: str) -> tuple[Choice, ...]:
        """The choices on a list axis, in order."""
        choices = self.choices[axis]
        if not isinstance(choices, tuple):
            raise PluginError(f"stage {self.stage}: {axis} takes one; ask `work.one('{axis}')`")
        return choices
