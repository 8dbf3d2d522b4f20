"""Mixtures against their formulas."""

import math

import numpy as np
import pytest
import torch
from harness_plugins.mixture.doremi import DoReMi, robust_step
from harness_plugins.mixture.proportional import Proportional
from harness_plugins.mixture.temperature import Temperature
from harness_plugins.mixture.weights import Weights

from harness import ConfigError

SIZES = {"books": 1_000, "code": 8_000, "web": 27_000}


def test_proportional_with_a_cap_is_the_formula() -> None:
    found = Proportional(Proportional.Config(cap=4_000)).weights(SIZES)
    assert found == pytest.approx({"books": 1 / 9, "code": 4 / 9, "web": 4 / 9})


def test_temperature_is_the_formula() -> None:
    found = Temperature(Temperature.Config(temperature=3.0)).weights(SIZES)
    assert found == pytest.approx({"books": 10 / 60, "code": 20 / 60, "web": 30 / 60})


def test_temperature_one_is_proportional_and_a_great_one_uniform() -> None:
    assert Temperature(Temperature.Config(temperature=1.0)).weights(SIZES) == pytest.approx(
        Proportional().weights(SIZES)
    )
    hot = Temperature(Temperature.Config(temperature=1e6)).weights(SIZES)
    assert max(hot.values()) - min(hot.values()) < 1e-5


def test_stated_weights_are_scaled_and_unknown_names_refused() -> None:
    method = Weights(Weights.Config(weights={"web": 3.0, "code": 1.0}))
    assert method.weights(SIZES) == {"books": 0.0, "code": 0.25, "web": 0.75}
    with pytest.raises(ConfigError, match=r"names \['news'\]; the corpus has"):
        Weights(Weights.Config(weights={"news": 1.0})).weights(SIZES)
    with pytest.raises(ConfigError, match="not all 0"):
        Weights.Config(weights={"web": 0.0})


def test_doremi_clips_every_token_before_it_takes_their_mean() -> None:
    excess_KM = torch.tensor([[1.0, -1.0], [0.1, 0.1]], dtype=torch.float64)
    found = robust_step(torch.tensor([0.5, 0.5]).double(), excess_KM, step_size=1.0, smoothing=0.0)
    half, tenth = math.exp(0.5), math.exp(0.1)
    assert found.tolist() == pytest.approx([half / (half + tenth), tenth / (half + tenth)])


def test_a_step_of_doremi_is_algorithm_1() -> None:
    weights, excess, eta, c = [0.2, 0.3, 0.5], [0.7, -0.4, 0.1], 1.5, 0.01
    raised = [w * math.exp(eta * max(e, 0.0)) for w, e in zip(weights, excess, strict=True)]
    expected = [(1 - c) * r / sum(raised) + c / 3 for r in raised]
    found = robust_step(
        torch.tensor(weights).double(), torch.tensor(excess).double()[:, None], step_size=eta, smoothing=c
    )
    assert found.tolist() == pytest.approx(expected, rel=1e-6)


def test_doremi_raises_the_domain_with_most_excess_loss() -> None:
    """Noise and constants have nothing more to learn; a large domain of long rules does."""
    rng = np.random.default_rng(0)
    table = rng.permutation(64)
    rule = [int(rng.integers(64))]
    for _ in range(20_000):
        rule.append(int(table[rule[-1]]) if rng.random() < 0.9 else int(rng.integers(64)))
    method = DoReMi(DoReMi.Config(steps=120, batch_size=64))
    method.tokens = {
        "constant": np.full(20_000, 7),
        "noise": rng.integers(0, 64, size=20_000),
        "rule": np.array(rule),
    }
    # The reference sees the rule most of the time, the proxy a third of it: its excess is the largest.
    found = method.weights({"constant": 1_000, "noise": 1_000, "rule": 18_000})
    assert found["rule"] > 1.2 / 3
    assert found["rule"] == max(found.values())
    assert sum(found.values()) == pytest.approx(1.0)
