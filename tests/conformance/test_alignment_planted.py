"""Planted bugs: the alignment and reward suites must fail on each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from told import told
from torch import Tensor

from harness.axes.alignment import Alignment, LogProbs, Needs, Rollouts
from harness.axes.reward import AnswerScorer, Reward
from harness.conformance import test_alignment as suite
from harness.conformance import test_reward as reward_suite
from harness.registry.known import registry

DPO: Any = registry().get("alignment", "dpo")
GRPO: Any = registry().get("alignment", "grpo")
Rules: Any = registry().get("reward", "rules")
Pairwise: Any = registry().get("reward", "pairwise")
Loss = tuple[Tensor, dict[str, Tensor]]
Parts = Mapping[str, LogProbs]


class Averaged(DPO):  # type: ignore[misc]
    """Returns one number for the whole batch."""

    name = "averaged"

    def loss(self, policy: Parts, reference: Parts) -> Loss:
        loss_B, facts = super().loss(policy, reference)
        return loss_B.mean(), facts


class Backwards(DPO):  # type: ignore[misc]
    """Prefers the rejected answer."""

    name = "backwards"

    def loss(self, policy: Parts, reference: Parts) -> Loss:
        swap = {"chosen": "rejected", "rejected": "chosen"}
        return super().loss(  # type: ignore[no-any-return]
            {swap[k]: v for k, v in policy.items()}, {swap[k]: v for k, v in reference.items()}
        )


class Unmasked(DPO):  # type: ignore[misc]
    """Sums over prompt and padding too."""

    name = "unmasked"

    def loss(self, policy: Parts, reference: Parts) -> Loss:
        def whole(parts: Parts) -> Parts:
            return {
                k: LogProbs(per_token_BT=p.per_token_BT, mask_BT=torch.ones_like(p.mask_BT))
                for k, p in parts.items()
            }

        return super().loss(whole(policy), whole(reference))  # type: ignore[no-any-return]


class Ordered(DPO):  # type: ignore[misc]
    """Weighs pairs by their place in the batch."""

    name = "ordered"

    def loss(self, policy: Parts, reference: Parts) -> Loss:
        loss_B, facts = super().loss(policy, reference)
        return loss_B * torch.arange(1, len(loss_B) + 1), facts


class Unanchored(DPO):  # type: ignore[misc]
    """Asks for a reference and ignores it."""

    name = "unanchored"

    def loss(self, policy: Parts, reference: Parts) -> Loss:
        return super().loss(policy, policy)[0] - policy["chosen"].mean(), {}


class WrongSign(GRPO):  # type: ignore[misc]
    """Makes better samples less likely."""

    name = "wrong_sign"

    def rollout_loss(self, rollouts: Rollouts) -> Loss:
        loss_B, facts = super().rollout_loss(rollouts)
        return -loss_B, facts


class Chatty(DPO):  # type: ignore[misc]
    """Replaces the question."""

    name = "chatty"

    def prompt(self, text: str) -> str:
        return "Tell me a joke."


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Averaged, suite.test_a_loss_for_each_item_and_facts_beside_it),
        (Backwards, suite.test_chosen_answers_become_likelier),
        (Unmasked, suite.test_what_lies_outside_the_answer_does_not_matter),
        (Ordered, suite.test_the_order_of_the_batch_does_not_matter),
        (Unanchored, suite.test_a_reference_is_read_only_where_it_is_asked_for),
        (WrongSign, suite.test_better_samples_become_likelier),
        (Chatty, suite.test_the_prompt_keeps_the_question),
    ],
)
def test_the_alignment_suite_catches_it(broken: type[Alignment], test: Callable[[Any], None]) -> None:
    assert broken.needs in Needs
    with told():
        test(broken)


class Relative(Rules):  # type: ignore[misc]
    """Scores an answer against the others of its batch."""

    name = "relative"

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        found: Tensor = super().score(prompts, answers, checks=checks, scorer=scorer)
        return found - found.mean()


class Blind(Rules):  # type: ignore[misc]
    """Gives everything the same."""

    name = "blind"

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        return torch.ones(len(answers))


class Placed(Rules):  # type: ignore[misc]
    """Likes the first answer best."""

    name = "placed"

    def score(
        self,
        prompts: Sequence[str],
        answers: Sequence[str],
        *,
        checks: Sequence[Mapping[str, object]],
        scorer: AnswerScorer | None = None,
    ) -> Tensor:
        return super().score(prompts, answers, checks=checks) - torch.arange(len(answers))  # type: ignore[no-any-return]


class Contrary(Pairwise):  # type: ignore[misc]
    """Learns to prefer the rejected answer."""

    name = "contrary"

    def loss(self, chosen_B: Tensor, rejected_B: Tensor, chosen_nll_B: Tensor) -> Loss:
        return super().loss(rejected_B, chosen_B, chosen_nll_B)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Relative, reward_suite.test_an_answer_counts_the_same_alone_and_in_company),
        (Blind, reward_suite.test_a_better_answer_earns_more),
        (Placed, reward_suite.test_the_order_of_answers_does_not_matter),
        (Contrary, reward_suite.test_a_learned_reward_learns_the_preference),
    ],
)
def test_the_reward_suite_catches_it(broken: type[Reward], test: Callable[[Any], None]) -> None:
    with told():
        test(broken)
