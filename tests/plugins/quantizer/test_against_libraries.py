"""Codebooks against bitsandbytes, GGUF blocks against the gguf package, int8 against planted outliers."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer import _codebook
from harness_plugins.quantizer._codebook import dynamic_levels
from harness_plugins.quantizer._int8 import Int8Linear, int8_product, product_by_float
from torch import Tensor, nn

from harness import Calibration
from harness.axes.quantizer import unpacked

GENERATOR = torch.Generator().manual_seed(0)


def weight(outputs: int = 32, inputs: int = 128) -> Tensor:
    return torch.randn(outputs, inputs, generator=GENERATOR)


def packed(name: str, value: Tensor, **options: Any) -> Any:
    """A linear layer with this weight, packed."""
    layer = nn.Linear(value.shape[1], value.shape[0], bias=False)
    layer.weight = nn.Parameter(value)
    method = tiny.choose("quantizer", name, **options).build()
    return method.quantize(nn.Sequential(layer), None)[0]


@pytest.mark.parametrize("name", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("kernel", [False, True])
def test_codebooks_equal_bitsandbytes(
    name: str, nested: bool, kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bitsandbytes import functional as bnb

    if not kernel:
        monkeypatch.setattr(_codebook, "dequantize_4bit", lambda: None)
    value = weight(64, 256)
    data, state = bnb.quantize_4bit(value, blocksize=64, quant_type=name, compress_statistics=nested)
    expected = bnb.dequantize_4bit(data, state)
    got = packed(name, value, double_quantization=nested).dequantize()
    scale = value.abs().max()
    different = ((got - expected).abs() > 2e-3 * scale).float().mean()
    assert different < 2e-3, f"{float(different):.3%} of the weights differ"
    if not nested:
        assert torch.allclose(got, expected, atol=1e-6) or different > 0


@pytest.mark.parametrize("name", ["nf4", "fp4"])
@pytest.mark.parametrize("block_size", [32, 64, 100, 256, 2048])
def test_a_packed_layer_reads_the_same_with_and_without_the_kernel(
    name: str, block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = packed(name, weight(48, 256), block_size=block_size, double_quantization=block_size == 256)
    ours = layer.dequantize()
    monkeypatch.setattr(_codebook, "dequantize_4bit", lambda: None)
    assert torch.equal(ours, layer.dequantize())


def test_the_dynamic_map_is_that_of_bitsandbytes() -> None:
    from bitsandbytes import functional as bnb

    assert torch.allclose(dynamic_levels(), bnb.create_dynamic_map(), atol=1e-7)


def test_bits_of_nf4_are_those_of_the_paper() -> None:
    plain = tiny.choose("quantizer", "nf4").build()
    nested = tiny.choose("quantizer", "nf4", double_quantization=True).build()
    assert plain.bits_per_weight(4096, 4096) == 4.5
    assert nested.bits_per_weight(4096, 4096) == pytest.approx(4.127, abs=1e-3)


@pytest.mark.parametrize("kind", ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"])
def test_gguf_bytes_read_back_as_the_package_reads_them(kind: str) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    layer = packed("gguf", weight(), format=kind)
    expected = dequantize(layer.blocks.numpy(), GGMLQuantizationType[kind.upper()])
    assert torch.equal(layer.dequantize(), torch.from_numpy(expected))


@pytest.mark.parametrize(
    ("kind", "bits"), [("q4_0", 4.5), ("q4_1", 5), ("q5_0", 5.5), ("q5_1", 6), ("q8_0", 8.5)]
)
def test_gguf_bits(kind: str, bits: float) -> None:
    assert tiny.choose("quantizer", "gguf", format=kind).build().bits_per_weight(64, 64) == bits


@pytest.mark.parametrize("product", [int8_product, product_by_float])
def test_integer_products_are_exact(product: Any) -> None:
    a = torch.randint(-127, 128, (5, 2500), generator=GENERATOR, dtype=torch.int8)
    b = torch.randint(-127, 128, (7, 2500), generator=GENERATOR, dtype=torch.int8)
    a[0], b[0] = 127, 127  # the largest sum there is
    found = product(a, b)
    assert found.dtype is torch.int32
    assert torch.equal(found.long(), a.long() @ b.long().T)


def test_llm_int8_survives_outliers_that_break_plain_int8() -> None:
    value = weight()
    x = torch.randn(16, 128, generator=GENERATOR)
    x[:, [3, 77]] *= 60  # two outlier features
    inside = x.index_fill(1, torch.tensor([3, 77]), 0.0)

    def error(layer: Any) -> float:
        """Error from rounding the inputs, against what the other features contribute."""
        with torch.no_grad():
            exact = x @ layer.dequantize().T
            return float((layer(x) - exact).norm() / (inside @ layer.dequantize().T).norm())

    assert error(packed("llm_int8", value)) < 0.01
    assert error(packed("zeroquant", value)) > 0.15, "plain int8 loses what lies beside the outliers"


def test_llm_int8_without_outliers_is_plain_int8() -> None:
    value, x = weight(), torch.randn(16, 128, generator=GENERATOR).clamp(-5, 5)
    with torch.no_grad():
        assert torch.equal(packed("llm_int8", value)(x), packed("zeroquant", value)(x))


def planted_model() -> Any:
    """A Llama whose normalised activations have outlier features."""
    model = tiny.llama()
    with torch.no_grad():
        for layer in model.model.layers:
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.weight[[1, 9]] = 60.0
    return model


def calibration() -> Calibration:
    # The same tokens for every method, so that what differs is the method.
    generator = torch.Generator().manual_seed(7)
    batches = [torch.randint(3, tiny.VOCABULARY, (4, 48), generator=generator) for _ in range(2)]
    return Calibration(batches_BT=batches, sha256="")


def logits(name: str, **options: Any) -> Tensor:
    """Logits of the planted model under a quantizer."""
    ids = torch.randint(3, tiny.VOCABULARY, (4, 48), generator=torch.Generator().manual_seed(5))
    model = planted_model()
    if name:
        model = tiny.choose("quantizer", name, **options).build().quantize(model, calibration())
    with torch.no_grad():
        return model(input_ids=ids).logits  # type: ignore[no-any-return]


def logits_error(name: str, **options: Any) -> float:
    """Error of the logits, against those of the model as it was."""
    expected = logits("")
    return float((logits(name, **options) - expected).norm() / expected.norm())


def test_llm_int8_keeps_a_model_whose_outliers_break_plain_int8() -> None:
    ids = torch.randint(3, tiny.VOCABULARY, (4, 48), generator=torch.Generator().manual_seed(5))
    packed_model = tiny.choose("quantizer", "zeroquant").build().quantize(planted_model(), None)
    with torch.no_grad():
        weights_only = unpacked(packed_model)(input_ids=ids).logits  # the same codes, inputs as they are

    def error(name: str) -> float:
        return float((logits(name) - weights_only).norm() / weights_only.norm())

    assert error("zeroquant") > 0.1, "rounding the inputs loses more than a tenth of the logits"
    assert error("llm_int8") < 0.3 * error("zeroquant")


def test_smoothing_beats_plain_int8_on_outliers_and_searching_is_no_worse() -> None:
    plain = logits_error("zeroquant")
    fixed = logits_error("smoothquant", alpha=0.5)
    searched = logits_error("smoothquant", search=[0.3, 0.5, 0.7])
    assert fixed < 0.7 * plain
    assert searched < 1.2 * fixed


def test_alpha_is_searched_by_the_error_of_the_quantized_product() -> None:
    search = [0.3, 0.4, 0.5, 0.6, 0.7]
    method = tiny.choose("quantizer", "smoothquant", search=search).build()
    model = method.quantize(planted_model(), calibration())
    assert len(set(method.facts["alpha"].values())) > 1, "layers differ in what suits them"
    for name, errors in method.facts["layer_errors"].items():
        assert errors[str(method.facts["alpha"][name])] == min(errors.values())
    # The first layer reads the same inputs in the full model: its error can be measured from outside.
    name, seen = "model.layers.0.self_attn.q_proj", []
    full = planted_model()
    full.get_submodule(name).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        for ids in calibration().batches_BT:
            full(input_ids=ids)
        x = torch.cat(seen).flatten(0, -2)
        exact = full.get_submodule(name)(x)
        error = (model.get_submodule(name)(x) - exact).square().sum() / exact.square().sum()
    assert min(method.facts["layer_errors"][name].values()) == pytest.approx(float(error), rel=1e-3)


def test_awq_beats_rounding_on_outliers() -> None:
    assert logits_error("awq", bits=3) < 0.9 * logits_error("rtn", bits=3)


def test_an_int8_layer_loads_its_smoothing() -> None:
    value = weight()
    smooth = torch.rand(128, generator=GENERATOR) + 0.5
    layer = Int8Linear(128, 32, None, smooth=True, threshold=float("inf")).fill(value, smooth)
    again = Int8Linear(128, 32, None, smooth=True, threshold=float("inf"))
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again.dequantize(), layer.dequantize())
