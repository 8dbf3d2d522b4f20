"""What every feed-forward layer must do."""

from __future__ import annotations

import torch

from harness.axes.feed_forward import FeedForward
from harness.conformance._compare import close
from harness.conformance._model_suite import *  # noqa: F403
from harness.conformance._models import SPEC, kept_values, model_of
from harness.method import Method

AXIS = "feed_forward"


def _layer(method: type[Method]) -> FeedForward:
    layer = model_of(method).model.layers[0].mlp
    assert isinstance(layer, FeedForward)
    return layer


@torch.no_grad()
def test_positions_do_not_mix(method: type[Method]) -> None:
    """The layer reads one position at a time."""
    layer = _layer(method)
    x_BTD = torch.randn(2, 6, SPEC.dim, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    alone = torch.cat([layer(x_BTD[:, t : t + 1]) for t in range(6)], dim=1)
    close(layer(x_BTD), alone, "a token's output depends on the other tokens")


def test_layers_have_uniform_names(method: type[Method]) -> None:
    """PEFT, quantizers and importers find `up_proj` and `down_proj` (and `gate_proj` where gated)."""
    names = {name.rpartition(".")[2] for name, module in _layer(method).named_modules() if module is not None}
    wanted = {"up_proj", "down_proj"} | ({"gate_proj"} if _layer(method).gated else set())
    assert wanted <= names, f"missing: {sorted(wanted - names)}"


def test_a_layer_keeps_what_the_plan_counts(method: type[Method]) -> None:
    """Memory is planned by `kept_values`: what a token keeps is within a fifth of it."""
    layer = _layer(method).train()
    x_BTD = torch.randn(4, 64, SPEC.dim, dtype=torch.float64, requires_grad=True)
    stated = layer.kept_values(layer.config, layer.spec) + SPEC.dim
    found = kept_values(layer, x_BTD)
    assert stated / 1.2 < found < 1.2 * stated, (
        f"a token keeps {found:.0f} values; kept_values says {stated:.0f}"
    )
