"""Evaluator: measures a model; each result keeps its samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from harness.method import Choice, Method

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from harness.axes.corpus import Document
    from harness.axes.decoding import Decoding
    from harness.axes.judge import Judge


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number with what is needed to print and to test it."""

    task: str
    """e.g. `perplexity`, `recall`, `gsm8k`."""
    metric: str
    """e.g. `bits_per_byte`, `acc`, `win_rate`."""
    value: float
    unit: str = ""
    """e.g. `bits/byte`, `%`, `MiB`; empty for plain shares."""
    higher_is_better: bool | None = True
    """None where neither end is better, e.g. the likelihood or the length of generated text."""
    stderr: float | None = None
    """Standard error over items, where items were sampled."""
    n: int = 0
    """Items behind the value."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What an evaluator found."""

    metrics: Sequence[Metric]
    samples: pd.DataFrame
    """One row an item and task: `task`, `doc_hash` (str), one column a metric, `prompt`, `answer`, ..."""
    facts: dict[str, Any] = field(default_factory=dict)
    """What comparability rests on, e.g. `truncated_contexts`, `evaluator_version`."""


class Evaluator(Method):
    """A measurement. The stage `evaluate` runs once for every evaluator and task."""

    axis = "evaluator"
    many = True
    default = ("perplexity",)
    uses: ClassVar[frozenset[str]] = frozenset()
    """Axes whose choice its result depends on: `decoding`, `judge`."""
    draws: ClassVar[bool] = True
    """Whether it depends on `Subject.seed`; where not, seeds share the result."""
    on_validation: ClassVar[frozenset[str]] = frozenset()
    """Metrics that its option `split: validation` measures on data that is never reported, for tuning."""

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        """The tasks of these options; each becomes one stage, so that adding one re-runs no other."""
        return (cls.name,)

    @classmethod
    def known_tasks(cls) -> Sequence[str]:
        """Tasks that it has, asked for or not, so that a claim about one is no misspelt name."""
        return ()

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str] | None:
        """Names of what it measures of a task, before it runs; None where only the run tells."""
        return None

    @classmethod
    def trial(cls) -> Any:
        """Options under which suites measure a tiny model in a second."""
        return cls.Config()

    @classmethod
    def only(cls, config: Any, task: str) -> Any:
        """The options as far as one task depends on them; they enter its key."""
        return config

    @classmethod
    def surroundings(cls, config: Any) -> dict[str, str]:
        """What the result depends on beyond options and inputs, e.g. the hardware for a speed."""
        return {}

    @classmethod
    def num_items(cls, config: Any, task: str) -> int | None:
        """Items that a task will measure at most, for plans; None where that is not known beforehand."""
        return None

    @classmethod
    def longest(cls, config: Any) -> int | None:
        """Tokens of the longest sequence that it reads whatever the model's window is, for plans; None where
        it keeps to the window.
        """
        return None

    @classmethod
    def longest_answer(cls, config: Any) -> int | None:
        """Tokens of the longest answer it lets the model draw, for which its window must leave room; None
        where it draws none, or only the task knows.
        """
        return None

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        """Choices of `ItemTexts`: the texts it measures on, which training text must not hold; none where
        items are generated and for what measures no text.
        """
        return ()

    @abstractmethod
    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        """Measure one task."""
        raise NotImplementedError


@dataclass(kw_only=True)
class Subject:
    """What an evaluator is given: the model with everything that belongs to it."""

    model: Any
    """A transformers causal model in eval mode on `device`."""
    tokenizer: Any
    """transformers' PreTrainedTokenizerFast."""
    max_length: int
    """Longest sequence the model is run on, in tokens."""
    name: str = ""
    """The key of the model's artifact; empty where it has none."""
    device: str = "cpu"
    seed: int = 0
    template: str | None = None
    """The chat template instruction tuning used, or None for a base model."""
    prompts: Sequence[Method] = ()
    """Methods applied to the model that change its prompts (control tokens), in order."""
    decoding: Decoding | None = None
    judge: Judge | None = None
    documents: Callable[[str], list[Document]] | None = None
    """Split -> documents of the corpus stage; None where the cell has no corpus."""
    baseline: Callable[[], Subject] | None = None
    """The win-rate baseline, loaded on demand."""
    models: Mapping[str, Callable[[], Subject]] = field(default_factory=dict)
    """Models that the evaluator's options name, by option, loaded on demand."""
    names: Mapping[str, str] = field(default_factory=dict)
    """The key of each of them, which changes with its content."""
    cache: Path | None = None
    """A folder that outlives this evaluation, for what is the same whatever model is measured."""
    stored_bytes: int | None = None
    """Bytes of the files that hold the weights, those of the base included."""
    bits: float | None = None
    """Bits stored per weight, where the model is quantized."""
    out: Path | None = None
    """The evaluation's artifact, where an evaluator may leave files of its own."""
    on_progress: Callable[[int, int], None] = field(default=lambda done, total: None)
    """Told how many requests of how many are answered, for the progress bar."""

    def prompt(self, text: str) -> str:
        """A user's message as this model expects it: control tokens, then the chat template."""
        for method in self.prompts:
            text = method.prompt(text)
        return (
            self.tokenizer.apply_chat_template(  # type: ignore[no-any-return]
                [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
            )
            if self.template
            else text
        )
