"""Reward: a number for an answer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from harness.axes.corpus import Split
from harness.axes.instruction import Prompt
from harness.method import Method

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Preference:
    """Two answers to one prompt, the first preferred; one of them is empty where only one was labelled."""

    id: str
    prompt: Prompt
    """A user's message, or all turns before the answers."""
    chosen: str
    rejected: str
    checks: dict[str, object] = field(default_factory=dict)
    """Machine-checkable constraints of the prompt; empty where there are none."""
    split: Split = Split.train

    @property
    def paired(self) -> bool:
        """Whether there are both answers."""
        return bool(self.chosen.strip() and self.rejected.strip())


class AnswerScorer(Protocol):
    """A trained reward model, or a language model that judges."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """The trained head's reward of B answers.

        Raises: IncompatibleError where the model has no such head
        """
        ...

    def log_probs(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Log-probability of B answers under the language model."""
        ...


class Reward(Method):
    """Scores answers. A learned reward `trains` in the stage of that name; others score at once.

    Shapes: scores are B, higher is better
    """

    axis = "reward"
    default = "none"
    optional = True
    trains: bool = False
    reads_language_model: bool = False
    """Whether `scorer` must be a language model: the option `model` where it is set, else the start of
    the policy."""

    @classmethod
    def reads_checks(cls, config: Any) -> bool:
        """Whether it says nothing of a prompt without machine-checkable constraints."""
        return False

    def from_scratch(self) -> bool:
        """Whether a trained reward starts from fresh weights of the policy's shape, not from the policy."""
        return False

    def loss(
        self, chosen_B: Tensor, rejected_B: Tensor, chosen_nll_B: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Training loss of each pair (B) and facts to log (B each), from the head's scores and the
        cross-entropy per token of the chosen answer under the same model's language head.
        """
        raise NotImplementedError

    @abstractmethod
    def score(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        """Rewards of B answers; `scorer` is the trained reward model where there is one."""
        raise NotImplementedError
