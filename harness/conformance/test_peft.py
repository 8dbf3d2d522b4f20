"""What every peft method must do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import nn

from harness.axes.peft import OnPacked, Peft
from harness.conformance.causal import causal_model, logits, own_model, packed, tokens
from harness.errors import IncompatibleError

AXIS = "peft"
TOLERANCE = 2e-5
"""Largest difference of logits between two ways to compute the same in fp32."""


def base(method: type[Peft], build: Callable[[], Any] = causal_model) -> Any:
    """What a method is put on: a model, packed where the method requires it."""
    model = build().requires_grad_(False)
    return packed(model) if method.on_packed is OnPacked.required else model


def put_on(method: type[Peft], build: Callable[[], Any] = causal_model) -> tuple[Peft, nn.Module]:
    """A method with its default options, and the model that it was applied to."""
    chosen = method()
    chosen.before_packing = build
    return chosen, chosen.apply(base(method, build))


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train_a_little(model: nn.Module, steps: int = 3) -> None:
    """A few steps of gradient descent towards random next tokens."""
    model.train()
    optimizer = torch.optim.SGD(trainable(model).values(), lr=0.5)
    ids_BT = tokens(1)
    for _ in range(steps):
        logits_BTV = model(input_ids=ids_BT, use_cache=False).logits
        loss = nn.functional.cross_entropy(logits_BTV[:, :-1].flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def test_it_trains_something(method: type[Peft]) -> None:
    _, model = put_on(method)
    assert trainable(model), "apply left no parameter that requires gradients"
    before = logits(model, tokens())
    train_a_little(model)
    assert not torch.allclose(before, logits(model, tokens()), atol=1e-4), "training did not change the model"


def test_logits_have_a_row_for_each_token(method: type[Peft]) -> None:
    _, model = put_on(method)
    assert logits(model, tokens()).shape[:2] == tokens().shape, (
        "logits have other positions than the tokens: drop virtual ones"
    )


def test_nothing_else_moves(method: type[Peft]) -> None:
    _, model = put_on(method)
    frozen = {n: p.detach().clone() for n, p in model.named_parameters() if not p.requires_grad}
    train_a_little(model)
    moved = [n for n, p in model.named_parameters() if n in frozen and not torch.equal(p, frozen[n])]
    assert not moved, f"frozen parameters moved: {moved[:3]}"
    assert method.delta == "weights" or frozen, "an adapter leaves the base frozen"


def test_switched_off_it_is_the_base(method: type[Peft]) -> None:
    if not method.reversible:
        return
    chosen, model = put_on(method)
    train_a_little(model)
    with chosen.disabled(model):
        assert torch.allclose(logits(model, tokens()), logits(base(method), tokens()), atol=TOLERANCE), (
            "within `disabled` the model is not what it was before `apply`; else state reversible = False"
        )
    assert not torch.allclose(logits(model, tokens()), logits(base(method), tokens()), atol=1e-4), (
        "after `disabled` the adapter is gone"
    )


def test_a_pass_finds_its_gradient_after_it_was_switched_off(method: type[Peft]) -> None:
    """A loss against a reference reads the policy first, then the model without its adapter."""
    if not method.reversible:
        return
    chosen, model = put_on(method)
    train_a_little(model)
    trained = trainable(model)
    model.eval()

    def gradients(*, switched: bool) -> tuple[torch.Tensor, ...]:
        found = model(input_ids=tokens(), use_cache=False).logits.logsumexp(-1).sum()
        if switched:
            with chosen.disabled(model):
                logits(model, tokens())
        return torch.autograd.grad(found, list(trained.values()), materialize_grads=True)

    for name, alone, between in zip(
        trained, gradients(switched=False), gradients(switched=True), strict=True
    ):
        assert torch.equal(alone, between), (
            f"the gradient of {name} is another where `disabled` came between a pass and it: change no "
            "weight in place there"
        )


def test_a_saved_adapter_comes_back(method: type[Peft]) -> None:
    if method.delta != "adapter":
        return
    chosen, model = put_on(method)
    train_a_little(model)
    with TemporaryDirectory() as directory:
        chosen.save(model, Path(directory))
        again = chosen.load(base(method), Path(directory), trainable=True)
    assert torch.allclose(logits(model, tokens()), logits(again, tokens()), atol=TOLERANCE), (
        "a saved and loaded adapter computes something else: save all that was trained"
    )
    assert set(trainable(again)) == set(trainable(model)), "a loaded adapter trains on as it did before"


def test_merged_equals_unmerged(method: type[Peft]) -> None:
    chosen, model = put_on(method)
    train_a_little(model)
    before = logits(model, tokens())
    if not method.mergeable or method.on_packed is OnPacked.required:
        with pytest.raises(IncompatibleError):
            chosen.merge(model)
        return
    merged = chosen.merge(model)
    assert torch.allclose(before, logits(merged, tokens()), atol=TOLERANCE), (
        "merging changes the logits; else state mergeable = False"
    )
    base = {name: p.shape for name, p in causal_model().named_parameters()}
    kept = {n: p.shape for n, p in merged.named_parameters() if n in base}
    assert kept == base, "a merged model is the plain model again"


def test_the_parameter_count_is_the_formula(method: type[Peft]) -> None:
    chosen = method()
    expected = chosen.trainable_parameters(base(method))
    if expected is not None:
        _, model = put_on(method)
        assert sum(p.numel() for p in trainable(model).values()) == expected, (
            "trainable_parameters is not what `apply` trains: the plan counts on it"
        )


def test_a_sequence_is_longer_by_the_virtual_tokens(method: type[Peft]) -> None:
    chosen, model = put_on(method)
    (first,) = (module for name, module in model.named_modules() if name.endswith("layers.0"))
    widths: list[int] = []
    first.register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[1]))
    logits(model, tokens())
    assert widths == [tokens().shape[1] + chosen.virtual_tokens()], (
        "sequences are not longer by virtual_tokens(): the plan counts on it"
    )


def test_it_generates(method: type[Peft]) -> None:
    _, model = put_on(method)
    train_a_little(model)
    ids_BT = tokens(batch=2, length=5)
    out = model.eval().generate(  # type: ignore[operator]
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=3, do_sample=False
    )
    first = logits(model, ids_BT)[:, -1].argmax(-1)
    assert torch.equal(out[:, ids_BT.shape[1]], first), "generate and forward disagree"


def test_it_works_on_our_transformer(method: type[Peft]) -> None:
    chosen, model = put_on(method, own_model)
    train_a_little(model)
    moved = logits(model, tokens())
    assert not torch.allclose(moved, logits(base(method, own_model), tokens()), atol=1e-4), "nothing changed"
    if method.delta == "adapter":
        with TemporaryDirectory() as directory:
            chosen.save(model, Path(directory))
            again = chosen.load(base(method, own_model), Path(directory), trainable=False)
        assert torch.allclose(moved, logits(again, tokens()), atol=TOLERANCE), (
            "on the composable transformer a saved and loaded adapter computes something else"
        )
    ids_BT = tokens(batch=2, length=5)
    out = model.eval().generate(  # type: ignore[operator]
        input_ids=ids_BT, attention_mask=torch.ones_like(ids_BT), max_new_tokens=2, do_sample=False
    )
    assert torch.equal(out[:, 5], logits(model, ids_BT)[:, -1].argmax(-1)), "generate and forward disagree"
    assert torch.equal(out[:, 6], logits(model, out[:, :6])[:, -1].argmax(-1)), "the cache changed the model"
