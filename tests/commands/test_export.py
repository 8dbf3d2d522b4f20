"""Exporting packed models: a plain directory that computes the same, and the method's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch

from harness.commands.compare import _write_model
from harness.errors import IncompatibleError
from harness.method import Choice
from harness.model.artifact import Loaded, describe, load_pretrained

IDS = torch.arange(7, 27)[None]


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=tiny.VOCABULARY, **shape)).eval()


def packed(model: Any, choice: Choice, directory: Path) -> tuple[Loaded, torch.Tensor]:
    """A packed model as an artifact would load it, and its logits."""
    from harness.data.tokenization import load_tokenizer

    tiny.byte_tokenizer(directory)
    model = choice.build().quantize(model, None)
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    loaded = Loaded(model=model, tokenizer=load_tokenizer(directory), base={}, applied=[describe(choice)])
    loaded.packed = True
    return loaded, logits


@pytest.mark.parametrize("make", [tiny.llama, gpt2])
def test_a_packed_model_is_exported_unpacked(make: Any, tmp_path: Path) -> None:
    choice = tiny.choose("quantizer", "rtn", bits=4)
    loaded, logits = packed(make(), choice, tmp_path / "tokenizer")
    assert _write_model(loaded, tmp_path / "out").endswith(", unpacked")
    with torch.no_grad():
        again = load_pretrained(str(tmp_path / "out")).model(input_ids=IDS).logits
    assert torch.allclose(again, logits, atol=1e-5)


def test_a_gguf_file_lies_beside_it(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    choice = tiny.choose("quantizer", "gguf", format="q5_1")
    loaded, logits = packed(tiny.llama(), choice, tmp_path / "tokenizer")
    assert _write_model(loaded, tmp_path / "out").endswith("; model-q5_1.gguf for its own programs")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", gguf_file="model-q5_1.gguf")
    with torch.no_grad():
        assert torch.allclose(model(input_ids=IDS).logits, logits, atol=1e-5)


def test_a_model_that_no_gguf_file_describes_is_exported_all_the_same(tmp_path: Path) -> None:
    loaded, _ = packed(gpt2(), tiny.choose("quantizer", "gguf"), tmp_path / "tokenizer")
    said = _write_model(loaded, tmp_path / "out")
    assert "no file for its own programs: a GGUF file is written for model type llama" in said
    assert (tmp_path / "out" / "model.safetensors").exists()


def test_an_adapter_on_packed_weights_is_not_lost_without_a_word(tmp_path: Path) -> None:
    loaded, _ = packed(tiny.llama(), tiny.choose("quantizer", "nf4"), tmp_path / "tokenizer")
    loaded.adapter = tiny.choose("peft", "lora")
    with pytest.raises(IncompatibleError, match="peft=lora cannot be merged into packed weights"):
        _write_model(loaded, tmp_path / "out")
