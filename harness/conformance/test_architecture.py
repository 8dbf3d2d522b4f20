"""What every architecture must do."""

from __future__ import annotations

import torch

from harness.axes.architecture import Architecture
from harness.conformance._model_suite import *  # noqa: F403
from harness.conformance._models import inputs_for, model_of, tokens
from harness.method import Method

AXIS = "architecture"


def test_without_a_prefix_the_stack_is_causal(method: type[Method]) -> None:
    """An empty prefix leaves the lower triangle, so that plain language modelling is well defined."""
    architecture = method()
    assert isinstance(architecture, Architecture)
    q, k = torch.arange(8)[:, None], torch.arange(8)[None]
    seen = torch.as_tensor(architecture.visible(q, k, torch.zeros(1, dtype=torch.long)))
    assert torch.equal(seen.expand(8, 8), k <= q), (
        "with an empty prefix, `visible` must let each token read itself and those before it, no others"
    )


@torch.no_grad()
def test_what_it_reads_besides_tokens_matters(method: type[Method]) -> None:
    """A prefix or a source that the architecture asks for changes the logits."""
    model, ids = model_of(method), tokens()
    for name in inputs_for(model):
        others = {key: value for key, value in inputs_for(model).items() if key != name}
        assert not torch.allclose(model(ids, **inputs_for(model)), model(ids, **others)), f"{name} is ignored"
