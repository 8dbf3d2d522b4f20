"""Alignment: learning from preferences or rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.axes.instruction import Role, Turn, as_turns
from harness.axes.reward import Preference
from harness.method import CellView, Method, Problem

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn


class Needs(StrEnum):
    """What an alignment method learns from."""

    preferences = "preferences"
    """Offline pairs: `loss` is handed chosen and rejected answers."""
    rollouts = "rollouts"
    """The policy's own samples, scored by the reward: `rollout_loss` is handed `Rollouts`."""


@dataclass(frozen=True, kw_only=True)
class LogProbs:
    """Log-probabilities of answers under one model.

    Shapes: per_token_BT with zeros outside the answer, mask_BT marks answer tokens
    """

    per_token_BT: Tensor
    mask_BT: Tensor

    def sum(self) -> Tensor:
        """Log-probability of each answer (B)."""
        return (self.per_token_BT * self.mask_BT).sum(-1)

    def mean(self) -> Tensor:
        """Per-token log-probability of each answer (B)."""
        return self.sum() / self.mask_BT.sum(-1).clamp(min=1)


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """Samples of the policy and what is known of them.

    Shapes: B samples of T positions, samples of one prompt adjacent; old, reference and values are B x T
    and zero outside the answers; rewards B, higher is better; extras hold what `prepare` returned
    """

    policy: LogProbs
    """Under the policy as it is now, with gradients; in `prepare`, as it was when it sampled."""
    old_BT: Tensor
    """Log-probabilities when sampled."""
    reference_BT: Tensor
    rewards_B: Tensor
    samples_per_prompt: int
    values_BT: Tensor | None
    """The value head's estimates, where the method `needs_values`."""
    extras: dict[str, Tensor]


def log_ratios(policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]) -> tuple[Tensor, Tensor]:
    """Log-ratios of policy to reference for chosen and rejected answers (B each)."""
    chosen_B = policy["chosen"].sum() - reference["chosen"].sum()
    rejected_B = policy["rejected"].sum() - reference["rejected"].sum()
    return chosen_B, rejected_B


class Alignment(Method):
    """A loss on preferences or on scored samples; the one training loop does the rest."""

    axis = "alignment"
    default = "none"
    optional = True
    moves_facts = frozenset({"counts"})
    needs: Needs = Needs.preferences
    needs_reference: bool = True
    needs_reward: bool = False
    parts: tuple[str, ...] = ("chosen", "rejected")
    """The sequences of a pair that `loss` is handed: those that `turns` names, and `mismatched` (the prompt
    with another prompt's chosen answer)."""
    takes_single_answers: bool = False
    """Whether `loss` reads an answer whose counterpart is missing; its mask is then zero."""
    needs_values: bool = False
    """Whether rollouts come with a value head's estimates."""

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """A reward that is missing, that no stage trains, or that says nothing of these prompts."""
        for stage in cell.stages:
            choice = cell.choice(cls.axis, stage=stage) if cls.axis in cell.reads(stage) else None
            if choice is not None and (choice.method, choice.config) == (cls, config):
                axis = "reward" if cls.needs is Needs.rollouts else "feedback"
                yield from told_apart(cell, stage, axis)
                if cls.needs is Needs.preferences and not cls.takes_single_answers:
                    yield from without_pairs(cell, stage, f"alignment={cls.name}")
                yield from _rewarded(cls, cell, stage)

    def turns(self, preference: Preference) -> dict[str, tuple[Turn, ...]]:
        """The sequences of a pair by name, as conversations; answers after the prompt are learned."""
        asked = as_turns(preference.prompt)
        return {
            "chosen": (*asked, Turn(role=Role.assistant, text=preference.chosen)),
            "rejected": (*asked, Turn(role=Role.assistant, text=preference.rejected)),
        }

    def loss(
        self, policy: Mapping[str, LogProbs], reference: Mapping[str, LogProbs]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each pair (B) and facts to log (B each), for methods that learn from preferences.

        Both hold log-probabilities by part; `reference` is empty unless the method `needs_reference`.
        """
        raise NotImplementedError

    def samples_per_prompt(self) -> int:
        """Answers sampled for each prompt."""
        return 1

    def updates_per_rollout(self) -> int:
        """Steps taken on the same samples before new ones are drawn."""
        return 1

    def samples_from_start(self) -> bool:
        """Whether samples come from the policy as it was before training, not as it is."""
        return False

    def relabel(self, prompts: Sequence[str], rewards_B: Tensor) -> list[str]:
        """The last user messages that samples are learned under, once their rewards are known (control
        tokens)."""
        return list(prompts)

    def replay(self, rewards_P: Tensor, size: int, generator: Generator) -> Tensor | None:
        """Which of all P samples drawn so far are learned now (`size` places); None for the newest."""
        return None

    def prepare(self, rollouts: Rollouts) -> dict[str, Tensor]:
        """Advantages and the like, B x ... each, computed once on all samples of a rollout."""
        return {}

    def rollout_loss(self, rollouts: Rollouts) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss of each sample (B) or token (B x T), and facts to log (B each), for methods that learn from
        their own samples."""
        raise NotImplementedError


def _rewarded(method: type[Alignment], cell: CellView, stage: str) -> Iterable[Problem]:
    """A problem where a reward is needed and is not chosen, or is trained by no stage before this one."""
    if not method.needs_reward:
        return
    reward = cell.choice("reward", stage=stage)
    before = cell.stages[: cell.stages.index(stage)]
    if reward is None:
        yield Problem(
            where=f"alignment={method.name}",
            message="it learns from rewards and none is chosen; set reward=rules (or pairwise, judge)",
        )
    elif reward.method.trains and not any(cell.makes(other) == "reward" for other in before):  # type: ignore[attr-defined]
        yield Problem(
            where=f"reward={reward.method.name}",
            message=f"it is a trained model; put the stage reward before {stage} in stages",
        )


def without_pairs(cell: CellView, stage: str, learner: str) -> Iterable[Problem]:
    """A problem where the feedback of a stage labels single answers, and what learns from it compares two."""
    choice = cell.choice("feedback", stage=stage)
    if choice is not None and choice.method.labels_single_answers(choice.config):  # type: ignore[attr-defined]
        yield Problem(
            where=f"feedback={choice.method.name}",
            message=f"its entries label single answers, and {learner} compares two to a prompt; use "
            "alignment=kto, or entries with a chosen and a rejected answer",
        )


def told_apart(cell: CellView, stage: str, axis: str) -> Iterable[Problem]:
    """A problem where the `reward` or `feedback` of a stage reads constraints that its conversations lack."""
    instruction, choice = cell.choice("instruction", stage=stage), cell.choice(axis, stage=stage)
    if choice is None or instruction is None or instruction.method.has_checks(instruction.config):  # type: ignore[attr-defined]
        return
    reads = choice.method.reads_checks  # type: ignore[attr-defined]
    if reads(choice.config) if axis == "reward" else reads:
        yield Problem(
            where=f"{axis}={choice.method.name}",
            message=f"it reads machine-checkable constraints, and instruction={instruction.method.name} has "
            "none, so that every answer would be as good as any other; use instruction=task, or "
            f"{'a trained reward' if axis == 'reward' else 'feedback=preferences'}",
        )
