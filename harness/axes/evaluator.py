"""Evaluator: measures a model; each result keeps its samples."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.method import Method

if TYPE_CHECKING:
    import pandas as pd


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
    higher_is_better: bool = True
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

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        """The tasks of these options; each becomes one stage, so that adding one re-runs no other."""
        return (cls.name,)

    @abstractmethod
    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        """Measure one task."""
        raise NotImplementedError


class Subject:
    """What an evaluator is given: the model with everything that belongs to it.

    Implemented by `harness.stages.evaluate`; declared here so that contracts can name it.
    """

    model: Any
    """A transformers causal model in eval mode on `device`."""
    tokenizer: Any
    """transformers' PreTrainedTokenizerFast."""
    template: Any
    """The prompt template instruction tuning used, or None for a base model."""
    decoding: Any
    """The chosen Decoding."""
    judge: Any
    """The chosen Judge."""
    documents: Any
    """Callable split -> list[Document] of the corpus stage."""
    baseline: Any
    """Callable () -> Subject of the win-rate baseline, or None."""
    device: str
    seed: int
    max_length: int
