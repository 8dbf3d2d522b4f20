"""Tiny models of ours, with one or more methods replaced."""

import dataclasses

from harness import ModelSpec
from harness.axes import MODEL_AXES
from harness.method import Choice
from harness.model import build
from harness.registry.known import registry

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


def attention_layer(name, *, dim=32, num_heads=4, head_dim=8, **options):
    """One attention layer in float64, with its spec."""
    import torch

    spec = ModelSpec(vocab_size=8, dim=dim, num_heads=num_heads, head_dim=head_dim, init_std=0.3)
    choice = choose("attention", name, **options)
    spec = choice.method.modify_spec(choice.config, spec)
    torch.manual_seed(0)
    return choice.build(spec, 0).double()


def causal_view(length, *, past=0, device="cpu"):
    """The view of a plain causal pass."""
    import torch

    from harness.ops.view import View, causal

    slots = torch.arange(past + length, device=device)[None]
    return View(query_position_BT=slots[:, past:], key_position_BS=slots, past=past, visible=causal)
