"""What records and artifacts say of themselves: the forms on which every reader rests."""

from typing import Any, NotRequired, TypedDict

from harness.stated import Stated


class Outcome(TypedDict):
    """How the cell ended."""

    status: str
    reason: NotRequired[str | None]
    stage: NotRequired[str | None]
    step: NotRequired[int | None]


class Stage(TypedDict):
    """One stage that the cell asked for."""

    stage: str
    key: str
    part: NotRequired[str]
    seed: NotRequired[int | None]
    threads: NotRequired[int | None]
    made: NotRequired[float | None]
    files: NotRequired[dict[str, str]]
    reused: NotRequired[bool]
    seconds: NotRequired[float | None]
    alone: NotRequired[bool]


class Metric(TypedDict):
    """One number that an evaluator measured."""

    evaluator: str
    task: str
    metric: str
    value: float | None
    stderr: NotRequired[float | None]
    n: NotRequired[int | None]
    unit: NotRequired[str | None]
    higher_is_better: NotRequired[bool | None]


class Tuned(TypedDict):
    """How the cell's values were tuned."""

    search: str
    metric: str
    split: str
    seed: int
    chosen: dict[str, Any] | None
    value: float | None
    edge: list[str]
    trials: list[dict[str, Any]]


class Git(TypedDict, total=False):
    """The state of a checkout."""

    commit: str
    dirty: bool
    diff: str
    wheel: str


class Provenance(TypedDict, total=False):
    """Where, when and with what the cell ran."""

    harness: str
    git: Git
    project: Git
    plugins: dict[str, str]
    versions: dict[str, str]
    python: str
    platform: str
    hardware: dict[str, Any]
    command: str
    started: str
    finished: str


class Config(TypedDict, total=False):
    """What of a config is read by name; a stage's or method's options have forms of their own."""

    stages: list[str]
    model: dict[str, Any]
    evaluator: dict[str, dict[str, Any]]


class Facts(TypedDict, total=False):
    """What a stage measured; beside these, whatever it likes."""

    effects: dict[str, Any]
    loss_curve: list[tuple[float, float | None]]
    """Steps and losses of a training."""


class Recorded(TypedDict):
    """A record."""

    format: int
    sweep: str
    cell: str
    config: Config
    experiment: Stated
    levels: dict[str, Any]
    seed: int
    outcome: Outcome
    stages: list[Stage]
    metrics: list[Metric]
    overrides: NotRequired[list[str]]
    seed_from: NotRequired[str | None]
    facts: NotRequired[dict[str, Facts]]
    effects: NotRequired[dict[str, dict[str, Any]]]
    models: NotRequired[dict[str, dict[str, Any]]]
    provenance: NotRequired[Provenance]
    tune: NotRequired[Tuned | None]
    notes: NotRequired[dict[str, str]]


class File(TypedDict):
    """A file of an artifact."""

    size: int
    mtime_ns: int
    sha256: str


class Described(TypedDict):
    """An artifact, in its artifact.json."""

    format: int
    stage: str
    kind: str
    inputs: dict[str, str]
    files: dict[str, File]
    created: float
    key: NotRequired[str]
    part: NotRequired[str]
    seed: NotRequired[int | None]
    threads: NotRequired[int | None]
    seconds: NotRequired[float]
    material: NotRequired[dict[str, Any]]
    externals: NotRequired[dict[str, str]]
    alone: NotRequired[bool]
    facts: NotRequired[Facts]
