"""What every pruner must do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.axes.pruner import Pruner
from harness.conformance._compare import close
from harness.conformance.causal import causal_model, logits, tokens
from harness.errors import EffectError
from harness.ops.calibration import Calibration
from harness.ops.packed_linear import linear_layers
from harness.stages.prune import measured

AXIS = "pruner"
DIM = 64
"""Divides by the usual patterns."""
OPTIONS: list[dict[str, Any]] = [
    {},
    {"sparsity": 0.7},
    {"pattern": "2:4"},
    {"pattern": "4:8"},
    {"pattern": "1:4"},
]


def base() -> Any:
    return causal_model(dim=DIM)


def calibration() -> Calibration:
    return Calibration(batches_BT=[tokens(seed, batch=4, length=48) for seed in range(2)], sha256="")


def chosen(method: type[Pruner], **options: Any) -> Pruner:
    return method(method.Config(**options))


def pruned(method: type[Pruner], **options: Any) -> Any:
    made = chosen(method, **options)
    return made.prune(base(), calibration() if made.needs_calibration else None)


def block_inputs(model: nn.Module, name: str) -> Tensor:
    """What a layer reads of the calibration data (rows x in)."""
    seen: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_pre_hook(
        lambda module, inputs: seen.append(inputs[0].detach().flatten(0, -2))
    )
    for ids_BT in calibration().batches_BT:
        logits(model, ids_BT)
    hook.remove()
    return torch.cat(seen)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_layer_is_as_sparse_as_asked(method: type[Pruner], options: dict[str, Any]) -> None:
    facts = measured(pruned(method, **options), chosen(method, **options))
    asked = {"2:4": 0.5, "4:8": 0.5, "1:4": 0.75}.get(
        options.get("pattern", ""), options.get("sparsity", 0.5)
    )
    assert set(facts["layer_sparsity"]) == set(linear_layers(base())), (
        "prune every linear layer but the head, and no other"
    )
    for name, share in facts["layer_sparsity"].items():
        assert share == pytest.approx(asked, abs=0.5 / DIM), f"layer {name} lost {share:.4f}, asked {asked}"


def test_no_more_than_two_of_four_inputs_stay(method: type[Pruner]) -> None:
    for name, layer in linear_layers(pruned(method, pattern="2:4")).items():
        weight: Any = layer.weight
        stay = (weight.unflatten(1, (-1, 4)) != 0).sum(-1)
        assert (stay <= 2).all(), f"{name} keeps {int(stay.max())} of 4 successive inputs"


def test_nothing_else_changes(method: type[Pruner]) -> None:
    before = dict(base().named_parameters())
    layers = {f"{name}.weight" for name in linear_layers(base())}
    after = dict(pruned(method).named_parameters())
    assert set(after) == set(before), "a parameter came or went: set weights to zero, in place"
    for name, parameter in after.items():
        assert torch.isfinite(parameter).all(), f"{name} is not finite"
        assert name in layers or torch.equal(parameter, before[name]), f"{name} changed"


def test_it_is_deterministic(method: type[Pruner]) -> None:
    first, second = pruned(method).state_dict(), pruned(method).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first), (
        "two prunings of one model differ: draw nothing"
    )


def test_it_loses_less_than_removing_at_random(method: type[Pruner]) -> None:
    model, generator = base(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for layer in linear_layers(model).values():
            weight: Any = layer.weight
            weight *= torch.rand(weight.shape, generator=generator) >= 0.3
    ids = tokens(0, batch=4, length=48)
    expected = logits(base(), ids)
    lost = (logits(pruned(method, sparsity=0.3), ids) - expected).norm()
    assert lost < 0.9 * (logits(model, ids) - expected).norm(), (
        "it loses more than removing weights at random"
    )


def test_a_block_is_pruned_on_what_the_pruned_ones_before_give(method: type[Pruner]) -> None:
    if method.gathers is None:
        return
    second = "model.layers.1.self_attn.q_proj"
    found, partly = pruned(method), base()
    partly.model.layers[0].load_state_dict(found.model.layers[0].state_dict())
    x = block_inputs(partly, second)
    inputs = method.gathers(x.shape[1], x.device)
    inputs.add(x.float())
    expected = chosen(method).prune_layer(base().get_submodule(second).weight.detach().clone(), inputs)
    why = "a later layer was not pruned by what reaches it through the layers pruned before: see `walk`"
    close(found.get_submodule(second).weight.detach(), expected, why, rtol=1e-3, atol=1e-4)


def test_pruning_again_changes_no_zero(method: type[Pruner]) -> None:
    made = chosen(method)
    once = pruned(method)
    zero = {name: layer.weight.detach() == 0 for name, layer in linear_layers(once).items()}  # type: ignore[operator]
    again = made.prune(once, calibration() if made.needs_calibration else None)
    for name, layer in linear_layers(again).items():
        weight: Any = layer.weight
        assert (weight[zero[name]] == 0).float().mean() > 0.9, f"{name} fills what was removed"


def test_a_model_without_linear_layers_is_refused(method: type[Pruner]) -> None:
    with pytest.raises(EffectError, match="no linear layer"):
        chosen(method).prune(nn.Sequential(nn.Embedding(4, 4)), calibration())
