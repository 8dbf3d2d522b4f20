"""Judge: which of two answers is better."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from harness.axes.instruction import Prompt
from harness.method import Method

if TYPE_CHECKING:
    from harness.axes.reward import AnswerScorer


@dataclass(frozen=True, kw_only=True)
class Duel:
    """Two answers to one prompt."""

    prompt: Prompt
    first: str
    second: str
    checks: dict[str, object]
    """Machine-checkable constraints of the prompt; empty where there are none."""


class Judge(Method):
    """Prefers one of two answers. Both orders are asked by the evaluator.

    State: `scorers` holds the models its ModelRef options name, by option, and under `reward` the cell's
        own reward model; `kept` is a file that survives a stopped evaluation, for verdicts that cost
    """

    axis = "judge"
    default = "rules"
    moves_facts = frozenset({"judge"})
    online: ClassVar[bool] = False
    """Whether it asks a server; suites and plans without a network leave it out."""
    kept: Path | None = None
    scorers: Mapping[str, AnswerScorer] = MappingProxyType({})

    @classmethod
    def reads_checks(cls, config: Any) -> bool:
        """Whether it says nothing of a prompt without machine-checkable constraints."""
        return False

    def facts(self) -> dict[str, Any]:
        """What a reader of its verdicts should know, e.g. that it was also trained against."""
        return {}

    @abstractmethod
    def prefer(self, duels: Sequence[Duel]) -> list[float]:
        """1.0 where the first answer is better, 0.0 where the second is, 0.5 for a draw, NaN for none."""
        raise NotImplementedError
