"""Tiny models of ours, with one or more methods replaced."""

import dataclasses

from harness import ModelSpec
from harness.axes import MODEL_AXES
from harness.method import Choice
from harness.model import build
from harness.registry import registry

SPEC = ModelSpec(
    vocab_size=64, dim=32, num_layers=2, num_heads=4, head_dim=8, ffn_dim=48, max_length=64, init_std=0.2
)


def choose(axis, name=None, **options):
    """A choice; the axis's default method where no name is given."""
    method = registry().get(axis, name or registry().axes[axis].default)
    return Choice(axis=axis, method=method, config=method.Config(**options))


def tiny(*, seed=0, shape=None, **methods):
    """A model of SPEC in eval mode; `attention="full"` or `attention=("sliding_window", {"window": 4})`."""
    choices = {}
    for axis in MODEL_AXES:
        name, options = methods.get(axis), {}
        if isinstance(name, tuple):
            name, options = name
        choices[axis] = choose(axis, name, **options)
    spec = dataclasses.replace(SPEC, **(shape or {}))
    for choice in choices.values():
        spec = choice.method.modify_spec(choice.config, spec)
    return build(spec, choices, seed=seed).eval()
