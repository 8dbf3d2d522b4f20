"""Feedback: planted strengths are recovered with their intervals; rules and questions see what is right."""

import numpy as np
import pytest
from harness_plugins.feedback.question import QuestionAnswers
from harness_plugins.feedback.ranking import Model, Ranking, bradley_terry, elo, standard_errors
from harness_plugins.feedback.rule import Rule

from harness import check
from harness.conformance.test_feedback import conversations

STRENGTHS = np.array([-1.0, -0.4, 0.0, 0.5, 0.9])


def games(rng: np.random.Generator, number: int) -> list[tuple[int, int]]:
    """Comparisons of random pairs with planted strengths."""
    found = []
    for _ in range(number):
        i, j = rng.choice(len(STRENGTHS), size=2, replace=False)
        wins = rng.random() < 1 / (1 + np.exp(STRENGTHS[j] - STRENGTHS[i]))
        found.append((int(i), int(j)) if wins else (int(j), int(i)))
    return found


def test_bradley_terry_maximises_the_likelihood() -> None:
    from scipy.optimize import minimize

    played = games(np.random.default_rng(0), 400)
    winners, losers = np.array(played).T

    def loss(free: np.ndarray) -> float:
        s = np.append(free, -free.sum())
        return float(np.log1p(np.exp(s[losers] - s[winners])).sum())

    best = minimize(loss, np.zeros(4), method="BFGS").x
    found = bradley_terry(played, 5, prior=0.0)
    assert found == pytest.approx(np.append(best, -best.sum()), abs=1e-4)


def test_planted_strengths_lie_in_their_intervals() -> None:
    inside = []
    for seed in range(40):
        played = games(np.random.default_rng(seed), 600)
        found = bradley_terry(played, 5, prior=0.0)
        error = standard_errors(played, found)
        inside.append(np.abs(found - STRENGTHS) < 1.96 * error)
    assert 0.90 <= np.mean(inside) <= 0.99


def test_elo_orders_the_planted_strengths() -> None:
    ratings = np.mean([elo(games(np.random.default_rng(s), 2000), 5, step=16.0) for s in range(10)], axis=0)
    assert list(np.argsort(ratings)) == [0, 1, 2, 3, 4]
    assert ratings == pytest.approx(STRENGTHS - STRENGTHS.mean(), abs=0.25)


@pytest.mark.parametrize("model", list(Model))
def test_sure_labellers_find_the_right_answer_and_guessing_ones_do_not(model: Model) -> None:
    def share(sharpness: float) -> float:
        method = Ranking(Ranking.Config(model=model, sharpness=sharpness, labellers=2))
        found = list(method.preferences(conversations(), 0))
        return float(np.mean([check(p.chosen, p.checks) for p in found]))

    assert share(50.0) == 1.0
    assert share(0.0) < 0.5


def test_rules_reject_what_breaks_a_check() -> None:
    found = list(Rule(Rule.Config(pairs_per_prompt=2)).preferences(conversations(), 0))
    assert len(found) > 150
    for preference in found:
        assert check(preference.chosen, preference.checks)
        assert not check(preference.rejected, preference.checks)


def test_questions_are_weighed() -> None:
    only_length = QuestionAnswers(QuestionAnswers.Config(weights={"right_length": 1.0}))
    conversation = conversations()[0]
    right = conversation.turns[-1].text
    assert only_length.score("x " * len(right.split()), conversation) == 1.0
    assert only_length.score(f"{right} x", conversation) == 0.0
