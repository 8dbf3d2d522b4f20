"""Bits per weight on file and in memory against theory, over every option; and what packing refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness import Calibration, IncompatibleError, PackedLinear, matmul_weights
from harness.model.artifact import load_model, save_model
from harness.ops.packed_linear import linear_layers
from harness.registry.known import registry

UNIFORM: list[dict[str, Any]] = [
    {"bits": bits, "granularity": granularity, "group_size": 32, "symmetric": bits % 2 == 0}
    for bits in (2, 3, 4, 5, 8)
    for granularity in ("tensor", "channel", "group")
]
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "rtn": UNIFORM,
    "gptq": UNIFORM[1::3],
    "awq": UNIFORM[2::6],
    "qat": UNIFORM[1::6],
    "nf4": [{"double_quantization": True}, {"block_size": 128}],
    "fp4": [{"double_quantization": True}],
    "gguf": [{"format": kind} for kind in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")],
    "torchao": [{"bits": 3, "group_size": 32}, {"mode": "dynamic"}],
}
METHODS = [name for name in registry().methods("quantizer") if name != "none"]
CASES = [(name, options) for name in METHODS for options in ({}, *OPTIONS.get(name, []))]


def calibration() -> Calibration:
    rows = torch.randint(3, tiny.VOCABULARY, (4, 64), generator=torch.Generator().manual_seed(0))
    return Calibration(batches_BT=[rows], sha256="")


@pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value))
def test_file_and_memory_hold_the_bits_that_theory_says(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    from safetensors import safe_open

    choice = tiny.choose("quantizer", name, **options)
    if choice.method.unavailable(choice.config) is not None:  # type: ignore[attr-defined]
        return  # its format is held to the same in test_gptq_format.py
    method = choice.build()
    dense = tiny.llama(dim=64, layers=1)
    weights = sum(layer.weight.numel() for layer in linear_layers(dense).values())
    multiplied, _ = matmul_weights(dense)
    model = method.quantize(dense, calibration() if method.needs_calibration else None)
    layers = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    theory = sum(
        m.num_weights() * method.bits_per_weight(m.in_features, m.out_features) for m in layers.values()
    )
    assert sum(m.num_weights() for m in layers.values()) == weights
    assert matmul_weights(model)[0] == multiplied, "packed weights are multiplied too"
    assert sum(m.stored_bits() for m in layers.values()) == pytest.approx(theory, rel=0.01)

    tiny.byte_tokenizer(tmp_path)
    applied = [{"axis": "quantizer", "method": name, "config": options}]
    save_model(tmp_path, model, base={}, delta="packed", applied=applied, tokenizer=str(tmp_path))
    with safe_open(tmp_path / "packed.safetensors", "pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    inside = [t for key, t in kept.items() if key.rpartition(".")[0] in layers]
    assert 8 * sum(t.numel() * t.element_size() for t in inside) == pytest.approx(theory, rel=0.01)
    size = (tmp_path / "packed.safetensors").stat().st_size
    assert size < 1.01 * sum(t.numel() * t.element_size() for t in kept.values()) + 10_000  # its header

    again = load_model(tmp_path, lambda key: None).model  # type: ignore[arg-type,return-value]
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


@pytest.mark.parametrize("name", ["rtn", "nf4", "gptq"])
def test_an_adapter_is_not_merged_into_packed_weights(name: str) -> None:
    method = tiny.choose("quantizer", name).build()
    model = method.quantize(tiny.llama(), calibration() if method.needs_calibration else None)
    peft = tiny.choose("peft", "lora").build()
    with pytest.raises(IncompatibleError, match="cannot be merged into packed weights: the sum is not on"):
        peft.merge(peft.apply(model))


@pytest.mark.parametrize("name", ["smoothquant", "zeroquant", "llm_int8"])
def test_an_adapter_may_add_to_an_integer_product_in_place(name: str) -> None:
    layer = torch.nn.Linear(16, 8, bias=False)
    rows = torch.randn(2, 4, 16, generator=torch.Generator().manual_seed(0))
    packed = tiny.choose("quantizer", name).build().empty_layer(layer)
    packed.codes.random_(-127, 128)
    packed.scale.fill_(0.01)
    x = rows.requires_grad_()
    y = packed(x)
    y += 1
    y.sum().backward()
    torch.testing.assert_close(x.grad, packed.dequantize().sum(0).expand_as(rows), rtol=1e-5, atol=1e-5)
