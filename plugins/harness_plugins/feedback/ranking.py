"""Ranking feedback: noisy comparisons of several answers, turned into strengths, then into preferences."""

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from harness import ConfigError, Conversation, Feedback, Method, Preference, hookimpl, share_met
from harness_plugins.feedback._answers import exercises, near_misses

ELO_SCALE = 400 / math.log(10)


class Model(Enum):
    """How comparisons become strengths."""

    bradley_terry = "bradley_terry"
    """Maximum likelihood over all comparisons."""
    elo = "elo"
    """One update after each comparison, in the order they came."""


class Ranking(Feedback):
    """Labellers compare pairs of answers and err; the strongest answer is preferred to the weakest.

    A labeller prefers an answer with probability sigmoid(sharpness * difference in checks met).
    Paper: Bradley and Terry 1952; Elo 1978; Ouyang et al. 2022, arXiv:2203.02155 (K answers ranked)
    """

    name = "ranking"
    reads_checks = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Feedback.Config):
        model: Model = Model.bradley_terry
        """How comparisons become strengths."""
        candidates: int = 4
        """Answers ranked for each prompt, the right one included."""
        labellers: int = 3
        """Times each pair is compared."""
        sharpness: float = 8.0
        """How surely a labeller sees the better answer; 0 is guessing."""

        def __post_init__(self) -> None:
            if self.candidates < 2 or self.labellers < 1:
                raise ConfigError("feedback=ranking needs candidates >= 2 and labellers >= 1")

    config: Config

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        for conversation in exercises(conversations):
            rng = random.Random(f"{seed}/{conversation.id}")
            wrong = near_misses(rng, conversation, conversations, self.config.candidates - 1)
            answers = [conversation.turns[1].text, *wrong]
            rng.shuffle(answers)
            merit = [share_met(answer, conversation.checks) for answer in answers]
            games = list(self._compared(rng, merit))
            if self.config.model is Model.bradley_terry:
                strengths = bradley_terry(games, len(answers), tolerance=1e-3)
            else:
                strengths = elo(games, len(answers))
            best, worst = int(np.argmax(strengths)), int(np.argmin(strengths))
            if strengths[best] > strengths[worst]:
                yield Preference(
                    id=conversation.id,
                    prompt=conversation.turns[0].text,
                    chosen=answers[best],
                    rejected=answers[worst],
                    checks=conversation.checks,
                )

    def _compared(self, rng: random.Random, merit: Sequence[float]) -> Iterator[tuple[int, int]]:
        """(winner, loser) of every pair, once for each labeller."""
        for _ in range(self.config.labellers):
            for first in range(len(merit)):
                for second in range(first):
                    edge = self.config.sharpness * (merit[first] - merit[second])
                    first_wins = rng.random() < 1 / (1 + math.exp(-edge))
                    yield (first, second) if first_wins else (second, first)


def bradley_terry(
    games: Sequence[tuple[int, int]], number: int, *, prior: float = 0.1, tolerance: float = 1e-8
) -> np.ndarray:
    """Strengths under P(i beats j) = sigmoid(s_i - s_j), by minorisation-maximisation.

    `prior` games drawn against every other player keep strengths finite where one wins all.
    Paper: Hunter 2004, MM algorithms for generalized Bradley-Terry models
    Shapes: number players -> number strengths, mean 0
    """
    wins = np.full((number, number), prior)
    np.fill_diagonal(wins, 0.0)
    for winner, loser in games:
        wins[winner, loser] += 1
    played = wins + wins.T
    worth = np.ones(number)
    for _ in range(1000):
        new = wins.sum(1) / (played / (worth[:, None] + worth[None, :])).sum(1)
        new /= np.exp(np.log(new).mean())
        change, worth = np.abs(np.log(new / worth)).max(), new
        if change < tolerance:
            break
    strengths = np.log(worth)
    return np.asarray(strengths - strengths.mean())


def standard_errors(games: Sequence[tuple[int, int]], strengths: np.ndarray) -> np.ndarray:
    """Standard errors of Bradley-Terry strengths with mean 0, from the information matrix."""
    mean = np.full((len(strengths), len(strengths)), 1 / len(strengths))
    information = np.zeros_like(mean)
    for winner, loser in games:
        p = 1 / (1 + np.exp(strengths[loser] - strengths[winner]))
        for i, j, sign in ((winner, winner, 1), (loser, loser, 1), (winner, loser, -1), (loser, winner, -1)):
            information[i, j] += sign * p * (1 - p)
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(information + mean) - mean)))


def elo(games: Sequence[tuple[int, int]], number: int, *, step: float = 32.0) -> np.ndarray:
    """Elo ratings on Bradley-Terry's scale (400 points are a factor of 10), mean 0."""
    ratings = np.zeros(number)
    for winner, loser in games:
        expected = 1 / (1 + math.exp((ratings[loser] - ratings[winner]) / ELO_SCALE))
        ratings[winner] += step * (1 - expected)
        ratings[loser] -= step * (1 - expected)
    return ratings / ELO_SCALE


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Ranking]
