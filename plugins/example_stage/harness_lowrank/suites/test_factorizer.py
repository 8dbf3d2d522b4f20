"""What every factorizer must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from harness_lowrank.factorizer import Factorizer

from harness import Calibration, ConfigError, EffectError, linear_layers
from harness.conformance.causal import causal_model, logits, tokens

AXIS = "factorizer"


def calibration() -> Calibration:
    return Calibration(batches_BT=[tokens(seed, batch=4, length=48) for seed in range(2)], sha256="")


def factorized(method: type[Factorizer], **options: Any) -> Any:
    made = method(method.Config(**options))
    return made.factorize(causal_model(dim=64), calibration() if made.needs_calibration else None)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: layer.weight.detach() for name, layer in linear_layers(model).items()}  # type: ignore[operator]


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_every_layer_has_the_rank_that_was_asked_for(method: type[Factorizer], share: float) -> None:
    for name, weight in weights(factorized(method, rank_share=share)).items():
        rank = int(torch.linalg.matrix_rank(weight, rtol=1e-4))
        assert rank == round(64 * share), f"{name} has rank {rank}"


def test_nothing_else_changes(method: type[Factorizer]) -> None:
    layers = {f"{name}.weight" for name in weights(causal_model(dim=64))}
    before = dict(causal_model(dim=64).named_parameters())
    for name, parameter in factorized(method).named_parameters():
        assert name in layers or torch.equal(parameter, before[name]), f"{name} changed"


def test_more_rank_loses_less(method: type[Factorizer]) -> None:
    expected = logits(causal_model(dim=64), tokens())
    lost = [(logits(factorized(method, rank_share=s), tokens()) - expected).norm() for s in (0.9, 0.5, 0.1)]
    assert lost[0] < lost[1] < lost[2]


def test_a_model_without_linear_layers_is_refused(method: type[Factorizer]) -> None:
    with pytest.raises(EffectError, match="no linear layer"):
        method().factorize(torch.nn.Sequential(torch.nn.Embedding(4, 4)), calibration())


def test_a_share_that_means_nothing_is_refused(method: type[Factorizer]) -> None:
    for wrong in (0.0, 1.0):
        with pytest.raises(ConfigError, match="must lie between 0 and 1"):
            method.Config(rank_share=wrong)
