"""Every option that shapes a model, beside every method that shapes one: it changes the model or is refused.

An option that is typed and that nothing reads is a lie of the plan's. A value counts as used where anything
that a user can tell differs: the weights, what the model computes in eval or in train mode, the gradients of
a training step, the kernels that ran, what a cache keeps, or the length that the config states. Pairs are
drawn with a seed that changes by the week (`HARNESS_PAIRS_SEED` fixes it); the slow tests take all of them.
"""

from __future__ import annotations

import os
import random
import time
import typing
from dataclasses import MISSING, Field, fields
from functools import cache
from typing import Any

import pytest
import torch

from harness.axes import MODEL_AXES
from harness.compose import Cell, compose
from harness.compose.schema import model_options
from harness.conformance._models import inputs_for, tokens
from harness.errors import HarnessError
from harness.method import Method
from harness.model import build
from harness.model.effects import model_effects
from harness.plan.grammar import value_text
from harness.plan.problems import problems
from harness.registry.known import registry

from options import other_values  # isort: skip

TOY = (
    *("scale=smoke", "device=cpu", "model.dim=32", "model.num_layers=2", "model.num_heads=4"),
    *("model.head_dim=32", "model.ffn_dim=48", "model.max_length=300", "pretrain.sequence_length=32"),
)
NEEDED = {"encoder_decoder": "model.num_encoder_layers=2", "deepnorm": "norm_position=post"}
"""What a method cannot do without."""
LENGTH = 330
"""Tokens of a row where positions have no end: beyond the trained length and all default windows."""
DRAWN = 12
"""Pairs of a fast run."""
Made = dict[str, Any]


def values(option: Field[Any], hints: dict[str, Any]) -> list[Any]:
    """Values other than the default; where that is null, one of the type that the option takes besides."""
    if option.default is not None and option.default is not MISSING:
        return other_values(option)
    kinds = typing.get_args(hints[option.name])
    return [value for kind, value in ((bool, True), (int, 16), (int, 1), (float, 0.3)) if kind in kinds]


@cache
def methods() -> list[type[Method]]:
    return [method for axis in MODEL_AXES for method in registry().methods(axis).values()]


def of_shape() -> list[tuple[type[Method], str, str]]:
    """(method, option, values): every option of the model's node beside every method."""
    kind, found = model_options(), []
    hints = typing.get_type_hints(kind)
    for option in fields(kind):
        found += [(method, f"model.{option.name}", values(option, hints)) for method in methods()]
    return [each for each in found if each[2]]


def of_methods() -> list[tuple[type[Method], str, str]]:
    """(method, option, values): every option of the method itself."""
    found = []
    for method in methods():
        hints = typing.get_type_hints(method.Config)
        found += [(method, f"{method.axis}.{f.name}", values(f, hints)) for f in fields(method.Config)]
    return [each for each in found if each[2] and each[1] != "attention.kernel"]  # often what auto takes


def composed(method: type[Method], *more: str) -> Cell:
    """A cell of the toy shape with a method; what is typed last wins.

    Raises: HarnessError where it is refused
    """
    given = {text.partition("=")[0]: text for text in (*TOY, f"{method.axis}={method.name}")}
    needed = NEEDED.get(method.name)
    for text in (*([needed] if needed else []), *more):
        given[text.partition("=")[0]] = text
    cell = compose(tuple(given.values()))
    for problem in problems(cell):
        raise HarnessError(str(problem))
    return cell


def made(cell: Cell) -> Made:
    """All that can be told of a cell's model."""
    spec, choices = cell.spec(), {axis: cell.choice(axis) for axis in MODEL_AXES}
    assert spec is not None
    model: Any = build(spec, choices, seed=0)  # type: ignore[arg-type]
    length = min(LENGTH, model.model.position.max_length() or LENGTH)
    ids, inputs = tokens(2, length), inputs_for(model)
    with torch.no_grad():
        found: Made = {"logits": model.eval()(ids, **inputs).logits}
    found["weights"] = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    found["effects"] = model_effects(model, choices, length=length)  # type: ignore[arg-type]
    found["cache"] = [type(layer).__name__ for layer in model.new_cache().layers]
    found["length"] = model.config.max_position_embeddings
    torch.manual_seed(0)
    loss = model.train()(ids, labels=ids, **inputs).loss
    layers = [module for module in model.modules() if isinstance(module, Method)]
    sum((term.value for layer in layers for term in layer.loss_terms({}, {})), loss).backward()
    found["gradients"] = {name: weight.grad for name, weight in model.named_parameters()}
    return found


def equal(left: Any, right: Any) -> bool:
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, torch.Tensor):
        return isinstance(right, torch.Tensor) and left.shape == right.shape and torch.equal(left, right)
    return bool(left == right)


@cache
def plain(method: type[Method]) -> Made:
    return made(composed(method))


def unread(method: type[Method], option: str, tried: list[Any]) -> str:
    """What is wrong with an option; empty where a value changes the model, or every one is refused."""
    refusals = []
    for value in tried:
        text = f"{option}={value_text(value)}"
        if text in TOY:
            continue
        try:
            cell = composed(method, text)
        except HarnessError as error:
            refusals.append(str(error))
            continue
        if equal(plain(method), made(cell)):
            return f"{text} changes nothing beside {method.axis}={method.name}: read it, or refuse it"
    if refusals and len(refusals) == len(tried):
        name = option.partition(".")[2]
        told = [text for text in refusals if name in text or method.name in text or method.axis in text]
        return "" if told else f"{option} is refused beside {method.name} without its name: {refusals[0]}"
    return ""


def drawn() -> list[Any]:
    draw = random.Random(int(os.environ.get("HARNESS_PAIRS_SEED", time.time() // (7 * 86400))))
    both = [*draw.sample(of_shape(), DRAWN), *draw.sample(of_methods(), DRAWN)]
    return [pytest.param(*each, id=f"{each[0].name}-{each[1]}") for each in both]


@pytest.mark.parametrize(("method", "option", "tried"), drawn())
def test_an_option_changes_the_model_or_is_refused(
    method: type[Method], option: str, tried: list[Any]
) -> None:
    """One of its values, drawn by its name."""
    value = random.Random(option).choice(tried)
    assert not (wrong := unread(method, option, [value])), wrong


@pytest.mark.slow
@pytest.mark.parametrize("method", methods(), ids=lambda method: f"{method.axis}={method.name}")
def test_every_option_changes_the_model_or_is_refused(method: type[Method]) -> None:
    every = [each for each in (*of_methods(), *of_shape()) if each[0] is method]
    wrong = [found for _, option, tried in every if (found := unread(method, option, tried))]
    assert not wrong, "\n".join(wrong)
