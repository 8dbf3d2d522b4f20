"""Whether a model can be rotated, told before any is made: one of its kind with drawn weights is tried."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.axes.peft import adapter_before
from harness.errors import IncompatibleError
from harness.method import Choice, Problem
from harness.ops.rotation import one_end, rms_norms, trace

if TYPE_CHECKING:
    from torch import nn

    from harness.compose import Cell

LAYERS, FEATURES, TOKENS = 2, 64, 64
"""Layers of the one that is tried, hidden features of its feed-forward layers, and rows of its vocabulary."""
_TRIED: dict[str, str] = {}
"""What spoke against a rotation of a shape, empty where nothing did."""


def turning_problems(cell: Cell, stage: str, model: nn.Module | None) -> Iterator[Problem]:
    """What speaks against the rotation that a stage makes before it packs a model of these shapes."""
    choice = cell.choice("rotation", stage=stage)
    if choice is None:
        return
    adapter = adapter_before(cell, stage)
    if adapter is not None and not (adapter.mergeable and cell.stage_config(stage).merge):
        yield Problem(where=stage, message=stands_on(choice, adapter.name))
    if model is not None and (message := refusal(choice, model)):
        yield Problem(where=stage, message=message)


def stands_on(choice: Choice, adapter: str) -> str:
    """Why weights beneath an adapter are not rotated."""
    return (
        f"rotation={choice.method.name} changes the weights beneath the adapter of peft={adapter}, which "
        "stands on the old: tune with peft=full or a method that can be merged, with quantize.merge=true, or "
        "use rotation=none"
    )


def refusal(choice: Choice, model: Any) -> str:
    """Why a model without data cannot be rotated; empty where it can, or only trying the real one tells."""
    spec, choices = getattr(model, "spec", None), getattr(model, "choices", None)
    name = f"{spec} {choices} {choice}" if spec is not None else ""
    if not name or name not in _TRIED:
        try:
            if spec is None:
                _look(model)
            else:
                choice.build().rotate(_drawn(spec, choices))  # type: ignore[attr-defined]
            found = ""
        except IncompatibleError as error:
            found = str(error)
        if not name:
            return found
        _TRIED[name] = found
    return _TRIED[name]


def _look(model: Any) -> None:
    """Look at a Hugging Face model without data; where it does not run without, its norms alone tell.

    Raises: IncompatibleError
    """
    norms = Counter(name.rpartition(".")[0] for name in rms_norms(model))
    try:
        plan = trace(model, heads=False)
    except (RuntimeError, NotImplementedError, TypeError):
        if max(norms.values()) > 2:
            raise IncompatibleError(
                f"{type(model).__name__} has {max(norms.values())} norms over its features in a layer, and "
                "a rotation passes two: it is not a pre-norm model as Llama is; use rotation=none"
            ) from None
        return
    one_end(model, plan)


def _drawn(spec: Any, choices: Any) -> nn.Module:
    """A model of few layers in which every weight was drawn: factors of norms that are all one commute."""
    import torch

    from harness.model import build

    small = dataclasses.replace(
        spec,
        num_layers=min(spec.num_layers, LAYERS),
        ffn_dim=min(spec.ffn_dim, FEATURES),
        vocab_size=min(spec.vocab_size, TOKENS),
    )
    model = build(small, choices, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
    return model
