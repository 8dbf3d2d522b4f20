"""Packed models in the layouts of other libraries: read by the library, or by its definition bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from exported_models import IDS, adapted, gpt2, packed
from safetensors.torch import load_file
from torch import Tensor

from harness.commands.compare import _write_model
from harness.errors import IncompatibleError
from harness.ops.packed_linear import PackedLinear

GROUPED = {"granularity": "group", "group_size": 32}


def llama() -> Any:
    """Wide enough for blocks of 64."""
    return tiny.llama(dim=64)


def exported(
    name: str, layout: str, directory: Path, make: Any = llama, **options: Any
) -> tuple[Any, Any, str]:
    """A packed model of ours, its logits, and what an export in a layout says."""
    loaded, logits = packed(make(), tiny.choose("quantizer", name, **options), directory / "tokenizer")
    layers = {n: m.dequantize() for n, m in loaded.model.named_modules() if isinstance(m, PackedLinear)}
    return layers, logits, _write_model(loaded, directory / "out", layout=layout)


def stated(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "out" / "config.json").read_text())["quantization_config"]
    return found


@pytest.mark.parametrize("name", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_reads_the_same_logits(name: str, nested: bool, tmp_path: Path) -> None:
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM

    layers, logits, _ = exported(name, "bitsandbytes", tmp_path, double_quantization=nested)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", device_map="cpu")
    read = {n: m for n, m in model.named_modules() if isinstance(m, Linear4bit)}
    assert set(read) == set(layers)
    for layer in read.values():
        layer.support_avx512bf16_for_cpu = False  # its fused product computes in bfloat16
    with torch.no_grad():
        again = model(input_ids=IDS).logits
    assert torch.allclose(again, logits, atol=1e-5)


def test_bitsandbytes_reads_the_same_eight_bit_codes(tmp_path: Path) -> None:
    from bitsandbytes.nn import Linear8bitLt
    from transformers import AutoModelForCausalLM

    layers, _, _ = exported("llm_int8", "bitsandbytes", tmp_path, outlier_threshold=5.0)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", device_map="cpu")
    read = {n: m for n, m in model.named_modules() if isinstance(m, Linear8bitLt)}
    assert set(read) == set(layers)
    for name, layer in read.items():
        weight = layer.weight.CB.float() * layer.weight.SCB[:, None] / 127
        assert torch.allclose(weight, layers[name], atol=1e-7)
        assert layer.state.threshold == 5.0


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("granularity", ["group", "channel", "tensor"])
def test_compressed_tensors_reads_the_same_logits(
    bits: int, symmetric: bool, granularity: str, tmp_path: Path
) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    options = {"bits": bits, "symmetric": symmetric, "granularity": granularity}
    options |= {"group_size": 32} if granularity == "group" else {}
    _, logits, _ = exported("rtn", "compressed-tensors", tmp_path, **options)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    with torch.no_grad():
        assert torch.allclose(model(input_ids=IDS).logits, logits, atol=1e-5)
    small = (tmp_path / "out" / "model.safetensors").stat().st_size
    dense = sum(p.numel() * 4 for p in llama().parameters())
    assert small < 0.75 * dense, "the layers are stored packed"


def test_compressed_tensors_keeps_a_symmetric_model_packed_in_memory(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    exported("rtn", "compressed-tensors", tmp_path, symmetric=True, **GROUPED)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert model.model.layers[0].mlp.up_proj.weight_packed.dtype is torch.int32


def bits_at(words: list[int], place: int, bits: int) -> int:
    """The value of some bits of a stream of 32-bit words, lowest bits first."""
    stream = 0
    for index, word in enumerate(words):
        stream |= (word & 0xFFFFFFFF) << (32 * index)
    return (stream >> (place * bits)) & ((1 << bits) - 1)


def by_definition(tensors: dict[str, Tensor], name: str, bits: int, *, less_one: bool) -> Tensor:
    """A GPTQ layer's weight from the format's definition (auto_gptq's qlinear_cuda.pack), value by value."""
    q, z, s, g = (tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales", "g_idx"))
    in_features, out_features = len(g), s.shape[1]
    columns, rows = q.T.tolist(), z.tolist()
    weight = torch.zeros(out_features, in_features)
    for o in range(out_features):
        zeros = [bits_at(row, o, bits) + int(less_one) for row in rows]
        for i in range(in_features):
            group = int(g[i])
            weight[o, i] = (bits_at(columns[o], i, bits) - zeros[group]) * float(s[group, o])
    return weight


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("options", [GROUPED, {"symmetric": True}, {"granularity": "tensor"}])
def test_gptq_tensors_are_what_the_format_says(bits: int, options: dict[str, Any], tmp_path: Path) -> None:
    layers, _, _ = exported("rtn", "gptq", tmp_path, bits=bits, **options)
    tensors, said = load_file(tmp_path / "out" / "model.safetensors"), stated(tmp_path)
    grouped, symmetric = options is GROUPED, options.get("symmetric", False)
    assert (said["bits"], said["group_size"]) == (bits, 32 if grouped else -1)
    assert said["checkpoint_format"] == ("gptq" if symmetric else "gptq_v2")
    name = "model.layers.1.self_attn.k_proj"
    found = by_definition(tensors, name, bits, less_one=symmetric)
    assert torch.allclose(found, layers[name], atol=1e-6)
    assert f"{name}.weight" not in tensors
    assert tensors[f"{name}.qweight"].shape == (64 // 32 * bits, 64)
    assert "lm_head.weight" in tensors or "model.embed_tokens.weight" in tensors


def test_our_reader_of_gptqmodels_files_reads_it(tmp_path: Path) -> None:
    from harness_plugins.quantizer._gptq_format import GPTQFormatLinear

    layers, _, _ = exported("rtn", "gptq", tmp_path, bits=3, symmetric=True, **GROUPED)
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    for name, weight in layers.items():
        out_features, in_features = weight.shape
        layer = GPTQFormatLinear(in_features, out_features, None, bits=3, group_size=32)
        for part, buffer in layer.named_buffers(recurse=False):
            buffer.copy_(tensors[f"{name}.{part}"])
        assert torch.allclose(layer.dequantize(), weight, atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_librarys_asymmetric_zeros_are_written_as_they_are(bits: int) -> None:
    """gptqmodel refuses the first format, zeros less one, for asymmetric grids that others made."""
    from harness_plugins.quantizer._gptq_format import GPTQFormatLinear, pack_words

    generator = torch.Generator().manual_seed(0)
    zeros, codes = (torch.randint(0, 2**bits, shape, generator=generator) for shape in ((2, 32), (64, 32)))
    layer = GPTQFormatLinear(64, 32, None, bits=bits, group_size=32)
    layer.qweight.copy_(pack_words(codes, bits))
    layer.qzeros.copy_(pack_words((zeros.T - 1) % 2**bits, bits).T)
    layer.scales.copy_(torch.rand(2, 32, generator=generator) + 0.5)
    layer.g_idx.copy_(torch.arange(64) // 32)
    choice = tiny.choose(
        "quantizer", "gptqmodel", python="python3", bits=bits, group_size=32, symmetric=False
    )
    laid_out = choice.build().lay_out({"layer": layer}, "gptq", skipped=())
    assert laid_out.config["checkpoint_format"] == "gptq_v2"
    tensors = {f"layer.{part}": tensor for part, tensor in laid_out.tensors["layer"].items()}
    assert torch.allclose(by_definition(tensors, "layer", bits, less_one=False), layer.dequantize())


def test_awq_tensors_are_what_the_format_says(tmp_path: Path) -> None:
    """AutoAWQ unpacks nibble after nibble, then takes outputs in its reverse order 0 4 1 5 2 6 3 7."""
    layers, _, _ = exported("rtn", "awq", tmp_path, **GROUPED)
    tensors, name = load_file(tmp_path / "out" / "model.safetensors"), "model.layers.0.mlp.down_proj"
    q, z, s = (tensors[f"{name}.{part}"] for part in ("qweight", "qzeros", "scales"))

    def unpack(words: Tensor) -> Tensor:
        nibbles = torch.stack([(words >> shift) & 15 for shift in range(0, 32, 4)], dim=-1)
        return nibbles[..., [0, 4, 1, 5, 2, 6, 3, 7]].flatten(-2)

    zeros, scales = (x.repeat_interleave(32, dim=0) for x in (unpack(z), s.float()))
    assert torch.allclose(((unpack(q) - zeros) * scales).T, layers[name], atol=1e-6)
    assert stated(tmp_path)["modules_to_not_convert"] == ["lm_head"]


@pytest.mark.parametrize("layout", ["awq", "gptq", "compressed-tensors"])
def test_awq_with_folded_factors_goes_out_packed(layout: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    layers, logits, said = exported("awq", layout, tmp_path, fold=True, **GROUPED)
    assert f"packed as {layout} does" in said
    tensors = load_file(tmp_path / "out" / "model.safetensors")
    norm = tensors["model.layers.0.input_layernorm.weight"]
    assert not torch.equal(norm, llama().model.layers[0].input_layernorm.weight), "it holds the factors"
    if layout == "compressed-tensors":
        pytest.importorskip("compressed_tensors")
        with torch.no_grad():
            again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=IDS).logits
        assert torch.allclose(again, logits, atol=1e-5)
    elif layout == "gptq":
        name = "model.layers.1.mlp.up_proj"
        assert torch.allclose(by_definition(tensors, name, 4, less_one=False), layers[name], atol=1e-6)


def own() -> Any:
    """Our transformer, wide enough for words of 32 codes, with heads that make a family name layers anew."""
    from harness.conformance.causal import own_model

    return own_model()


def test_our_own_transformer_is_packed_under_the_names_of_its_family(tmp_path: Path) -> None:
    pytest.importorskip("compressed_tensors")
    from transformers import AutoModelForCausalLM

    _, logits, said = exported("rtn", "compressed-tensors", tmp_path, make=own, symmetric=True)
    assert "packed as compressed-tensors does" in said
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=IDS).logits
    assert torch.allclose(again, logits, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layout", "make", "options", "message"),
    [
        ("rtn", "bitsandbytes", llama, {}, "it has gptq, awq, compressed-tensors"),
        ("nf4", "gptq", llama, {}, "it has bitsandbytes"),
        ("zeroquant", "gptq", llama, {}, "no library's layout holds what it stores"),
        ("hqq", "gptq", llama, {}, "whole zero points, and these lie between codes"),
        ("awq", "awq", llama, GROUPED, "quantizer.fold=true, which folds them into what lies before"),
        ("rtn", "gptq", llama, {"bits": 5}, "2 or 3 or 4 or 8 bits, and this has 5"),
        ("rtn", "awq", llama, {"bits": 8}, "4 bits, and this has 8"),
        ("rtn", "compressed-tensors", gpt2, {}, "stores .* in another form"),
        ("nf4", "bitsandbytes", tiny.llama, {}, "block_size=64 does not divide its 32 inputs"),
        ("rtn", "safetensors", llama, {}, "cannot be written so"),
    ],
)
def test_what_a_layout_cannot_say_is_refused_and_leaves_nothing(
    name: str, layout: str, make: Any, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(IncompatibleError, match=message):
        exported(name, layout, tmp_path, make=make, **options)
    assert not (tmp_path / "out").exists()


def test_small_scales_are_refused_where_a_layout_rounds_them(tmp_path: Path) -> None:
    model = llama()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight[0] *= 1e-6
    with pytest.raises(IncompatibleError, match="keeps scales in float16, and this has one of"):
        exported("rtn", "gptq", tmp_path, make=lambda: model)


def test_a_dense_model_has_no_layout(tmp_path: Path) -> None:
    loaded, _ = packed(llama(), tiny.choose("quantizer", "rtn"), tmp_path / "tokenizer")
    loaded.model, loaded.packed, loaded.applied = llama(), False, []
    with pytest.raises(IncompatibleError, match="the model is not packed"):
        _write_model(loaded, tmp_path / "out", layout="gptq")


@pytest.mark.parametrize("name", ["lora", "dora", "vera"])
def test_an_adapter_on_packed_weights_is_merged_into_the_unpacked_ones(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded, base = adapted(llama, name, tmp_path / "tokenizer", quantizer="nf4", rank=4)
    with torch.no_grad():
        logits, without = (m.model(input_ids=IDS).logits for m in (loaded, base))
    said = _write_model(loaded, tmp_path / "out", base=base, merge=True)
    assert said.endswith(f", unpacked, with the adapter of peft={name} merged")
    assert not (tmp_path / "out" / "adapter").exists()
    with torch.no_grad():
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")(input_ids=IDS).logits
    assert torch.allclose(again, logits, atol=1e-4)
    assert not torch.allclose(again, without, atol=1e-2)


def test_an_adapter_lies_beside_a_base_that_bitsandbytes_reads(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    loaded, base = adapted(llama, "lora", tmp_path / "tokenizer", quantizer="nf4")
    with torch.no_grad():
        logits = loaded.model(input_ids=IDS).logits
    said = _write_model(loaded, tmp_path / "out", base=base, layout="bitsandbytes")
    assert "packed as bitsandbytes does; the adapter of peft=lora in adapter/" in said
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", device_map="cpu")
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    read = PeftModel.from_pretrained(model, tmp_path / "out" / "adapter").eval()
    with torch.no_grad():
        assert torch.allclose(read(input_ids=IDS).logits, logits, atol=1e-4)


def test_only_an_adapter_can_be_merged(tmp_path: Path) -> None:
    loaded, _ = packed(llama(), tiny.choose("quantizer", "rtn"), tmp_path / "tokenizer")
    with pytest.raises(IncompatibleError, match="the model carries no adapter of its own"):
        _write_model(loaded, tmp_path / "out", merge=True)
