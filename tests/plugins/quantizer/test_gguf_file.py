"""GGUF files: read back by the package and by transformers, run by llama.cpp where it is installed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer._gguf_file import write_gguf

from harness import IncompatibleError
from harness.data.tokenization import load_tokenizer

KINDS = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]
IDS = torch.arange(7, 39)[None]


@pytest.fixture
def tokenizer(tmp_path: Path) -> Any:
    tiny.byte_tokenizer(tmp_path / "tokenizer")
    return load_tokenizer(tmp_path / "tokenizer")


def written(directory: Path, tokenizer: Any, kind: str) -> tuple[Path, torch.Tensor, Any]:
    """A file, the logits of the packed model it stands for, and the packed model."""
    method = tiny.choose("quantizer", "gguf", format=kind).build()
    file = method.write_file(tiny.llama(dim=64, kv_heads=2), tokenizer, directory)
    packed = method.quantize(tiny.llama(dim=64, kv_heads=2), None)
    with torch.no_grad():
        return file, packed(input_ids=IDS).logits, packed


@pytest.mark.parametrize("kind", KINDS)
def test_the_file_holds_the_bytes_of_the_packed_layers(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    from gguf import GGUFReader

    file, _, packed = written(tmp_path, tokenizer, kind)
    tensors = {tensor.name: tensor for tensor in GGUFReader(file).tensors}
    down = torch.from_numpy(tensors["blk.1.ffn_down.weight"].data.copy())
    assert torch.equal(down, packed.model.layers[1].mlp.down_proj.blocks)
    assert tensors["blk.0.attn_q.weight"].tensor_type.name == kind.upper()
    layers = [t for t in tensors.values() if t.name.startswith("blk.") and "norm" not in t.name]
    bits = 8 * sum(t.n_bytes for t in layers) / sum(int(t.n_elements) for t in layers)
    assert bits == tiny.choose("quantizer", "gguf", format=kind).build().bits_per_weight(64, 64)


@pytest.mark.parametrize("kind", KINDS)
def test_transformers_reads_it_back_as_the_packed_model(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

    file, expected, _ = written(tmp_path, tokenizer, kind)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32)
    with torch.no_grad():
        assert torch.allclose(model(input_ids=IDS).logits, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_llama_cpp_computes_the_same(kind: str, tmp_path: Path, tokenizer: Any) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="pip install 'harness-lm[llama-cpp]' compiles it")
    file, expected, _ = written(tmp_path, tokenizer, kind)
    model = llama_cpp.Llama(str(file), n_ctx=64, logits_all=True, verbose=False)
    model.eval(IDS[0].tolist())
    found = torch.tensor(model.scores[: IDS.shape[1]])
    # llama.cpp rounds the inputs of each product to 8 bits.
    assert (found - expected[0]).norm() < 0.03 * expected.norm()
    text = "def f(x):"
    assert (
        model.tokenize(text.encode(), add_bos=False) == tokenizer(text, add_special_tokens=False)["input_ids"]
    )


def test_bytes_survive_unpacking_and_packing_again() -> None:
    for kind in KINDS:
        method = tiny.choose("quantizer", "gguf", format=kind).build()
        layer = torch.nn.Linear(128, 64, bias=False)
        packed = method.pack(layer)
        layer.weight.data = packed.dequantize()
        assert torch.equal(method.pack(layer).blocks, packed.blocks), kind


def test_what_the_file_cannot_say_is_refused(tmp_path: Path, tokenizer: Any) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = tiny.llama()
    model.config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(IncompatibleError, match="without rotary scaling, and this has linear"):
        write_gguf(model, tokenizer, tmp_path / "a.gguf", kind="q4_0")
    other = GPT2LMHeadModel(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2, n_positions=32))
    with pytest.raises(IncompatibleError, match="and this is gpt2"):
        write_gguf(other, tokenizer, tmp_path / "b.gguf", kind="q4_0")
