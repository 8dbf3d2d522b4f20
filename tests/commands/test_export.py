"""Exporting packed models: a plain directory that computes the same, and the method's own file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from exported_models import IDS, adapted, gpt2, packed

from harness.commands.compare import _write_model
from harness.errors import IncompatibleError, StoreError
from harness.model.artifact import Loaded, describe, load_pretrained


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
    assert "no file for its own programs: a GGUF file is written for model types llama, qwen2, qwen3" in said
    assert (tmp_path / "out" / "model.safetensors").exists()


def own() -> Any:
    from harness.conformance.causal import own_model

    return own_model()


@pytest.mark.parametrize("make", [tiny.llama, gpt2, own])
@pytest.mark.parametrize(
    ("name", "quantizer"),
    [("lora", "nf4"), ("lora", "rtn"), ("ia3", "rtn"), ("lora", "zeroquant"), ("prompt_tuning", None)],
)
def test_an_adapter_that_cannot_be_merged_is_exported_beside_its_base(
    make: Any, name: str, quantizer: str | None, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {}
    if name == "ia3" and make is gpt2:
        options = {"target_modules": ["c_attn", "c_proj"], "feedforward_modules": ["c_proj"]}
    loaded, base = adapted(make, name, tmp_path / "tokenizer", quantizer=quantizer, **options)
    with torch.no_grad():
        logits = loaded.model(input_ids=IDS, use_cache=False).logits
        without = base.model(input_ids=IDS, use_cache=False).logits
    said = _write_model(loaded, tmp_path / "out", base=base)
    assert said.endswith(f"; the adapter of peft={name} in adapter/, which peft loads")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    model = PeftModel.from_pretrained(read, tmp_path / "out" / "adapter").eval()
    with torch.no_grad():
        again = model(input_ids=IDS, use_cache=False).logits
    length = without.shape[1]
    again = again[:, -length:]  # the peft library returns what stands at virtual tokens too
    if quantizer == "zeroquant":  # its layers rounded what they read, and those of the directory do not
        assert "unpacked, without the rounding of activations" in said
        assert (again - logits).norm() < 0.03 * logits.norm()
    else:
        assert torch.allclose(again, logits, atol=1e-4)
    assert not torch.allclose(again, without, atol=1e-2)


def test_an_adapter_that_no_library_reads_leaves_nothing_behind(tmp_path: Path) -> None:
    loaded, base = adapted(tiny.llama, "adapter_serial", tmp_path / "tokenizer", quantizer="rtn")
    with pytest.raises(IncompatibleError, match=r"cannot put the adapter of peft=adapter_serial"):
        _write_model(loaded, tmp_path / "to" / "out", base=base)
    assert not list((tmp_path / "to").iterdir())


def test_an_export_replaces_nothing_and_is_whole_or_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, _ = packed(tiny.llama(), tiny.choose("quantizer", "rtn"), tmp_path / "tokenizer")
    there = tmp_path / "to" / "there"
    there.mkdir(parents=True)
    (there / "notes.txt").write_text("mine")
    with pytest.raises(StoreError, match="is there already, and not an empty folder"):
        _write_model(loaded, there)
    assert [file.name for file in there.iterdir()] == ["notes.txt"]

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("harness.store.files.os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        _write_model(loaded, tmp_path / "to" / "out")
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["there"]


SAYABLE = {
    "position_interpolation": "linear",
    "yarn": "yarn",
    "llama3": "llama3",
    "longrope": "longrope",
    "dynamic_ntk": "dynamic",
    "ntk_aware": "default",
    "base_modification": "default",
    "direct_finetune": "default",
}


FAMILIES: dict[str, dict[str, Any]] = {
    "phi3": {},  # its config takes one kind of scaling alone
    "gemma3_text": {
        "head_dim": 16,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"],
    },
}


def of_family(name: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    shape |= {"num_key_value_heads": 1, "max_position_embeddings": 32, "pad_token_id": 0, "vocab_size": 512}
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **shape, **FAMILIES[name], eos_token_id=1, bos_token_id=2)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    return model


OURS: dict[str, dict[str, Any]] = {
    "ours": {},
    "gpt_neox": {
        "position": ("rope", {"fraction": 0.5}),
        "norm": "layernorm",
        "feed_forward": "gelu",
        "shape": {"bias": True},
    },
    "qwen3": {
        "shape": {
            "qk_norm": True,
            "layer_pattern": [{"attention": {"method": "sliding_window", "window": 8}}, {}],
        }
    },
}
"""Models of ours by the family that they are exported as."""


def extended(name: str, kind: str, directory: Path) -> Loaded:
    """A model with a context method applied, as an artifact would load it."""
    from composed import tiny as ours

    from harness.data.tokenization import load_tokenizer

    tiny.byte_tokenizer(directory)
    if kind in FAMILIES:
        model = of_family(kind)
    else:
        own = OURS.get(kind, {})
        shape = {"vocab_size": tiny.VOCABULARY, **own.get("shape", {})}
        model = tiny.llama() if kind == "theirs" else ours(**{**own, "shape": shape})
    choice = tiny.choose("context", name, factor=4.0)
    model = choice.build().apply(model)
    return Loaded(model=model, tokenizer=load_tokenizer(directory), base={}, applied=[describe(choice)])


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in SAYABLE for kind in ("ours", "theirs")),
        *((name, kind) for name in ("yarn", "ntk_aware", "dynamic_ntk") for kind in ("gpt_neox", "qwen3")),
    ],
)
def test_an_extended_context_is_exported_as_it_was_evaluated(name: str, kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = extended(name, kind, tmp_path / "tokenizer")
    said = _write_model(loaded, tmp_path / "out")
    assert said.endswith(f"a {kind if kind in ('gpt_neox', 'qwen3') else 'llama'} model")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    assert again.config.rope_parameters["rope_type"] == SAYABLE[name]
    trained = loaded.model.config.trained_length
    ids = torch.randint(0, tiny.VOCABULARY, (1, 3 * trained), generator=torch.Generator().manual_seed(0))
    for length in (trained // 2, 3 * trained):
        with torch.no_grad():
            found, expected = again(ids[:, :length]).logits, loaded.model(ids[:, :length]).logits
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", ["streaming", "rerope", "basis_truncation", "external_memory"])
def test_what_no_config_says_is_not_exported(name: str, kind: str, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match=f"no Hugging Face config says what context={name} does"):
        _write_model(extended(name, kind, tmp_path / "tokenizer"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["yarn", "llama3", "position_interpolation", "dynamic_ntk"])
def test_what_a_family_does_not_read_is_refused_in_words(name: str, tmp_path: Path) -> None:
    with pytest.raises(IncompatibleError, match=r"(?s)transformers refuses the config.*rope_"):
        _write_model(extended(name, "phi3", tmp_path / "tokenizer"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", SAYABLE)
def test_layers_of_a_type_that_reads_near_keep_their_positions(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    loaded = extended(name, "gemma3_text", tmp_path / "tokenizer")
    before = loaded.model.config.rope_parameters["sliding_attention"]
    _write_model(loaded, tmp_path / "out")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    said = again.config.rope_parameters
    assert said["full_attention"]["rope_type"] == SAYABLE[name]
    assert said["sliding_attention"]["rope_theta"] == before["rope_theta"]
    ids = torch.randint(3, 500, (1, 90), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        found, expected = again(ids).logits, loaded.model(ids).logits
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_a_directory_that_reads_otherwise_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import harness.model.exported as exported

    def forgets(folder: Path, parameters: Any, *, trained: int) -> None:
        """What an export did that left the scaling out."""

    monkeypatch.setattr(exported, "state_positions", forgets)
    with pytest.raises(IncompatibleError, match="does not read as the evaluated one"):
        _write_model(extended("yarn", "theirs", tmp_path / "tokenizer"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
