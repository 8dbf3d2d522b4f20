"""Fused experts become linear layers: the same model, packed like any other, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from tiny_models import mixture
from torch import Tensor, nn

from harness import Calibration, IncompatibleError, PackedLinear
from harness.axes.quantizer import planned_bytes, unpacked
from harness.ops.experts import fuse_experts, unfuse_experts
from harness.ops.packed_linear import linear_layers


def logits(model: Any) -> Tensor:
    ids = torch.arange(2, 26)[None]
    with torch.no_grad():
        return model(input_ids=ids).logits  # type: ignore[no-any-return]


FAMILIES = ["Mixtral", "Qwen3Moe", "GptOss"]


@pytest.mark.parametrize("family", FAMILIES)
def test_linear_experts_compute_what_fused_ones_do_and_fuse_again(family: str) -> None:
    model = mixture(family)
    names, expected = set(model.state_dict()), logits(model)
    unfuse_experts(model)
    assert torch.allclose(logits(model), expected, atol=1e-5)
    fuse_experts(model)
    assert set(model.state_dict()) == names
    assert torch.equal(logits(model), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_all_experts_are_packed_and_counted(family: str) -> None:
    method = tiny.choose("quantizer", "rtn", bits=8).build()
    model = mixture(family)
    experts = sum(p.numel() for n, p in model.named_parameters() if "experts" in n and p.ndim == 3)
    attention = sum(
        p.numel() for n, p in model.named_parameters() if "self_attn" in n and n.endswith("proj.weight")
    )
    expected, planned = logits(model), planned_bytes(model, method, bits=32)
    packed = method.quantize(model, None)
    layers = [m for m in packed.modules() if isinstance(m, PackedLinear)]
    assert sum(m.num_weights() for m in layers) == experts + attention
    assert (logits(packed) - expected).norm() < 0.05 * expected.norm()
    kept = sum(p.numel() * p.element_size() for p in packed.parameters())
    stored = kept + sum(m.stored_bits() for m in layers) / 8
    assert planned == pytest.approx(stored, rel=0.01)


def test_packed_experts_load_and_unpack_to_the_layout_they_had() -> None:
    method = tiny.choose("quantizer", "rtn", bits=8).build()
    packed = method.quantize(mixture("Mixtral"), None)
    again = method.empty(mixture("Mixtral"))
    again.load_state_dict(packed.state_dict())
    assert torch.equal(logits(again), logits(packed))
    dense = unpacked(again)
    assert set(dense.state_dict()) == set(mixture("Mixtral").state_dict())
    assert torch.allclose(logits(dense), logits(packed), atol=1e-5)


@pytest.mark.parametrize("name", ["gptq", "awq", "smoothquant"])
def test_calibrated_methods_see_each_experts_own_tokens(name: str) -> None:
    rows = torch.randint(2, 64, (16, 64), generator=torch.Generator().manual_seed(0))
    model, expected = mixture("Mixtral"), logits(mixture("Mixtral"))
    bits = {} if name == "smoothquant" else {"bits": 4}
    method = tiny.choose("quantizer", name, **bits).build()
    packed = method.quantize(model, Calibration(batches_BT=rows.split(4), sha256=""))
    assert not linear_layers(packed)
    plain = tiny.choose("quantizer", "rtn", bits=4).build().quantize(mixture("Mixtral"), None)
    assert (logits(packed) - expected).norm() < (logits(plain) - expected).norm()


class Folded(nn.Module):
    """Experts in a layout of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.zeros(2, 4, 4))
        self.out = nn.Linear(4, 4)


def test_experts_in_another_layout_are_refused_by_name() -> None:
    with pytest.raises(IncompatibleError, match="experts of Folded holds 2 x 4 x 4 weights"):
        tiny.choose("quantizer", "rtn").build().quantize(Folded(), None)
    kind = tiny.choose("quantizer", "rtn")
    problems = list(kind.method.check(kind.config, None, Folded()))  # type: ignore[arg-type]
    assert any("would stay as it is" in str(problem) for problem in problems)
