"""Methods that calibrate on a model with an encoder: what they observe is what its layers read."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as choices
import torch
from composed import tiny
from torch import Tensor

from harness import Calibration, linear_layers, walk

IDS = torch.randint(3, 64, (12, 24), generator=torch.Generator().manual_seed(0))


def model() -> Any:
    return tiny(architecture="encoder_decoder", shape={"num_encoder_layers": 2})


@torch.no_grad()
def test_every_layer_is_observed_as_a_source_and_its_continuation_are_read() -> None:
    """The first half of a sequence is the source, the rest what the decoder reads."""
    read = model()
    observed: dict[str, Tensor] = {}
    expected: dict[str, Tensor] = {}
    for name, layer in linear_layers(read).items():
        layer.register_forward_pre_hook(lambda _, x, name=name: expected.__setitem__(name, x[0]))
    read(IDS[:, 12:], encoder_input_ids=IDS[:, :12], use_cache=False)
    walk(model(), [IDS], lambda name, x, _: observed.__setitem__(name, x), lambda _: None)
    assert observed.keys() == expected.keys() == linear_layers(read).keys()
    for name, x in expected.items():
        torch.testing.assert_close(observed[name].reshape_as(x), x)


@pytest.mark.parametrize(
    ("name", "options"), [("gptq", {}), ("awq", {"grid_points": 2, "clip_points": 2}), ("smoothquant", {})]
)
@torch.no_grad()
def test_a_model_with_an_encoder_is_packed_whole(name: str, options: dict[str, Any]) -> None:
    inputs = {"input_ids": IDS[:, 12:], "encoder_input_ids": IDS[:, :12]}
    exact = model()(**inputs).logits
    method: Any = choices.choose("quantizer", name, **{"bits": 8, **options} if name != "smoothquant" else {})
    packed = method.build().quantize(model(), Calibration(batches_BT=[IDS], sha256=""))
    assert not linear_layers(packed)
    assert (packed(**inputs).logits - exact).norm() < 0.1 * exact.norm()
