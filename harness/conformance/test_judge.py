"""What every judge must do. One that needs a network is tried on its options alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch
from torch import Tensor

from harness.axes.instruction import Prompt
from harness.axes.judge import Duel, Judge

AXIS = "judge"


class Longest:
    """A reward model that likes long answers."""

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return torch.tensor([float(len(answer)) for answer in answers])

    def log_probs(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        return -self.score(prompts, answers)


CHECKS: dict[str, object] = {"num_words": 2, "starts_with": "value"}
DUELS = [
    Duel(prompt="Say two words", first=first, second=second, checks=CHECKS)
    for first in ("value name", "value", "name", "")
    for second in ("value name", "value", "name", "")
]


def made(method: type[Judge]) -> Judge:
    """An instance whose reward models like long answers."""
    judge = method()
    options = [f.name for f in dataclasses.fields(judge.config) if f.metadata.get("model_ref")]
    judge.scorers = {name: Longest() for name in (*options, "reward")}
    return judge


def test_every_duel_gets_a_verdict(method: type[Judge]) -> None:
    if method.online:
        return
    verdicts = made(method).prefer(DUELS)
    assert len(verdicts) == len(DUELS), "one verdict a duel, in order"
    assert all(0 <= verdict <= 1 for verdict in verdicts), "1 = first better, 0 = second, 0.5 = draw"


def test_equal_answers_draw(method: type[Judge]) -> None:
    if method.online:
        return
    duels = [duel for duel in DUELS if duel.first == duel.second]
    assert made(method).prefer(duels) == [0.5] * len(duels), "two equal answers must draw: 0.5"


def test_swapped_answers_swap_the_verdict(method: type[Judge]) -> None:
    if method.online:
        return
    swapped = [dataclasses.replace(duel, first=duel.second, second=duel.first) for duel in DUELS]
    judge = made(method)
    assert judge.prefer(DUELS) == [1 - verdict for verdict in judge.prefer(swapped)], (
        "the verdict depends on which answer stands first: prefer(a, b) must be 1 - prefer(b, a)"
    )


def test_it_tells_answers_apart(method: type[Judge]) -> None:
    if method.online:
        return
    assert set(made(method).prefer(DUELS)) > {0.5}, "some of these answers are better than others"


def test_no_duel_is_no_error(method: type[Judge]) -> None:
    assert made(method).prefer([]) == [], "no duel must give no verdict: []"
