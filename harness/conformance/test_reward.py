"""What every reward must do."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.axes.instruction import Prompt
from harness.axes.reward import Reward

AXIS = "reward"
PROMPTS = ["Write two words.", "Say yes.", "Copy: a b", "Say yes."]
ANSWERS = ["red blue", "no", "a b", "yes"]
CHECKS: list[dict[str, object]] = [{"num_words": 2}, {"exact": "yes"}, {"exact": "a b"}, {"exact": "yes"}]


class WordScorer:
    """A stand-in for a trained model: knows the answers; judges `yes` likely after a good one."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        good = {"red blue", "a b", "yes"}
        return torch.tensor([1.0 if answer in good else -1.0 for answer in answers])

    def log_probs(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        good = {"red blue", "a b", "yes"}
        inside = torch.tensor([any(f"{word}\n" in f"{prompt}\n" for word in good) for prompt in prompts])
        said_yes = torch.tensor([answer.strip().lower().startswith("yes") for answer in answers])
        return torch.where(inside == said_yes, -0.1, -3.0)


def score(method: type[Reward], places: Sequence[int]) -> Tensor:
    return method().score(
        [PROMPTS[i] for i in places],
        [ANSWERS[i] for i in places],
        checks=[CHECKS[i] for i in places],
        scorer=WordScorer(),
    )


def test_one_number_for_each_answer(method: type[Reward]) -> None:
    found = score(method, range(4))
    assert found.shape == (4,), (
        f"rewards of shape {tuple(found.shape)}, where 4 answers were given: one number each"
    )
    assert torch.isfinite(found).all(), "a reward is not finite"


def test_an_answer_counts_the_same_alone_and_in_company(method: type[Reward]) -> None:
    together = score(method, range(4))
    alone = torch.cat([score(method, [i]) for i in range(4)])
    assert torch.allclose(together, alone), "an answer's reward depends on the other answers"


def test_the_order_of_answers_does_not_matter(method: type[Reward]) -> None:
    assert torch.allclose(score(method, [3, 1, 0, 2]), score(method, range(4))[[3, 1, 0, 2]]), (
        "an answer's reward depends on its place among the others"
    )


def test_a_better_answer_earns_more(method: type[Reward]) -> None:
    found = score(method, range(4))
    assert found[3] > found[1], "an answer that does what was asked earns more than one that does not"


def test_a_learned_reward_learns_the_preference(method: type[Reward]) -> None:
    if not method.trains:
        return
    chosen_B = torch.zeros(5, requires_grad=True)
    rejected_B = torch.zeros(5, requires_grad=True)
    loss_B, facts = method().loss(chosen_B, rejected_B, torch.ones(5))
    assert loss_B.shape == (5,), "one loss for each pair"
    loss_B.sum().backward()
    assert chosen_B.grad is not None, "the loss does not read the chosen answer's score"
    assert rejected_B.grad is not None, "the loss does not read the rejected answer's score"
    assert (chosen_B.grad < 0).all(), "a higher score of the chosen answer must lower the loss"
    assert (rejected_B.grad > 0).all(), "a higher score of the rejected answer must raise it"
    assert all(fact.shape == (5,) for fact in facts.values()), "facts hold one number for each pair"
