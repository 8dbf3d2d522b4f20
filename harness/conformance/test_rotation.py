"""What every rotation must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from harness.axes.quantizer import unpacked
from harness.axes.rotation import Rotation
from harness.conformance.causal import causal_model, logits, tokens

AXIS = "rotation"


def base() -> Any:
    """A small Llama whose norms have factors other than one."""
    model = causal_model(dim=64)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.copy_(torch.rand(parameter.shape, generator=generator) + 0.5)
    return model


@pytest.mark.parametrize("size", [16, 36, 64, 172, 576])
def test_the_matrix_is_orthogonal_and_the_same_each_time(method: type[Rotation], size: int) -> None:
    found = method().matrix(size)
    assert torch.allclose(found @ found.T, torch.eye(size).double(), atol=1e-10), (
        "matrix(size) times its transpose is not the identity: it must be orthogonal"
    )
    assert torch.equal(found, method().matrix(size)), (
        "matrix(size) differs at a second call: draw from Config.seed"
    )
    assert not torch.allclose(found.abs(), torch.eye(size).double(), atol=0.1), (
        "matrix(size) is the identity, up to signs"
    )


def test_the_logits_stay_and_the_weights_change(method: type[Rotation]) -> None:
    model, expected = base(), logits(base(), tokens())
    rotated = method().rotate(model)
    assert torch.allclose(logits(rotated, tokens()), expected, atol=1e-4 * float(expected.abs().max())), (
        "the rotated model computes something else: rotate both sides of every product"
    )
    before = base().state_dict()
    changed = [
        n
        for n, t in rotated.state_dict().items()
        if n.endswith("proj.weight") and not torch.equal(t, before[n])
    ]
    assert len(changed) == sum(n.endswith("proj.weight") for n in before), "a projection was not rotated"
    for kept in ("get_input_embeddings", "get_output_embeddings"):
        assert torch.equal(getattr(rotated, kept)().weight, getattr(base(), kept)().weight), (
            "embeddings and head must stay as they are"
        )


def test_it_is_undone_exactly_enough_to_export(method: type[Rotation]) -> None:
    expected = logits(base(), tokens())
    plain = unpacked(method().rotate(base()))
    assert torch.allclose(logits(plain, tokens()), expected, atol=1e-4 * float(expected.abs().max())), (
        "undone, the model computes something else"
    )
    assert not hasattr(plain, "rotated"), "undone, the model must not be marked as rotated"
    again = type(base())(plain.config).eval()  # what a checkpoint says, without what runs beside it
    again.load_state_dict(plain.state_dict())
    assert torch.allclose(logits(again, tokens()), expected, atol=1e-4 * float(expected.abs().max())), (
        "a checkpoint of the undone model computes something else"
    )


def test_a_stored_model_comes_back(method: type[Rotation]) -> None:
    rotated = method().rotate(base())
    again = method().empty(causal_model(dim=64))
    again.load_state_dict(rotated.state_dict())
    assert torch.equal(logits(again, tokens()), logits(rotated, tokens())), (
        "a stored model comes back with other logits: `empty` must prepare all that is rotated as it runs"
    )
