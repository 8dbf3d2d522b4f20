"""The GPTQ checkpoint format, and what is said where a library's interpreter is missing."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer import _external_gptq as external
from harness_plugins.quantizer import _interpreter
from harness_plugins.quantizer._gptq_format import GPTQFormatLinear, unpack_words
from harness_plugins.quantizer._interpreter import call
from safetensors.torch import save_file

from harness import Calibration, ConfigError, EffectError, HarnessError, IncompatibleError
from harness.compose import compose

LIBRARIES = ["auto_gptq", "gptqmodel"]


def stream(codes: np.ndarray, bits: int) -> torch.Tensor:
    """Codes as a little-endian bit stream along the first dimension, by numpy's own bit packing."""
    planes = (codes[:, None] >> np.arange(bits)[None, :, None]) & 1
    rows = planes.reshape(-1, codes.shape[1]).T.astype(np.uint8)
    words = np.ascontiguousarray(np.packbits(rows, axis=1, bitorder="little")).view("<i4")
    return torch.from_numpy(np.ascontiguousarray(words.T))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_words_are_a_little_endian_bit_stream(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 2**bits, (64, 5))
    assert torch.equal(unpack_words(stream(codes, bits), bits), torch.from_numpy(codes))


def write_checkpoint(directory: Path, out: Path) -> None:
    """What a worker would: every linear layer rounded by channel, in the GPTQ format."""
    from transformers import AutoModelForCausalLM

    bits = json.loads((directory / "options.json").read_text())["settings"]["bits"]
    rounded = tiny.choose("quantizer", "rtn", bits=bits, symmetric=True).build()
    model = AutoModelForCausalLM.from_pretrained(directory)
    tensors = {}
    for name, layer in rounded.targets(model).items():
        grid = rounded.round(layer)
        codes = (grid.dequantize() / grid.scale.float()).round().long() + 2 ** (bits - 1)
        zeros = np.full((1, grid.out_features), 2 ** (bits - 1) - 1)
        tensors[f"{name}.qweight"] = stream(codes.T.numpy(), bits)
        tensors[f"{name}.qzeros"] = stream(zeros.T, bits).T.contiguous()
        tensors[f"{name}.scales"] = grid.scale.half().T.contiguous()
        tensors[f"{name}.g_idx"] = torch.zeros(grid.in_features, dtype=torch.int32)
    out.mkdir()
    save_file(tensors, out / "model.safetensors")


@pytest.mark.parametrize("bits", [3, 4])
def test_a_checkpoint_is_taken_back_layer_by_layer(bits: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(
        external, "call", lambda python, script, *paths, within: write_checkpoint(*(Path(p) for p in paths))
    )
    monkeypatch.setattr(external.ExternalGPTQ, "unavailable", classmethod(lambda cls, config: None))
    method = tiny.choose("quantizer", "auto_gptq", bits=bits, group_size=None, python="python").build()
    rows = torch.randint(3, tiny.VOCABULARY, (2, 16))
    model = method.quantize(tiny.llama(), Calibration(batches_BT=[rows], sha256=""))
    plain = tiny.choose("quantizer", "rtn", bits=bits, symmetric=True).build().quantize(tiny.llama(), None)
    for name, layer in model.named_modules():
        if isinstance(layer, GPTQFormatLinear):
            assert torch.equal(layer.dequantize(), plain.get_submodule(name).dequantize())
            stated = method.bits_per_weight(layer.in_features, layer.out_features)
            assert layer.stored_bits() / layer.num_weights() == pytest.approx(stated, rel=0.01)
    again = method.empty(tiny.llama())
    again.load_state_dict(model.state_dict())
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(again(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_layer_the_library_left_out_is_an_error(tmp_path: Path) -> None:
    save_file({"nothing": torch.zeros(1)}, tmp_path / "model.safetensors")
    method = tiny.choose("quantizer", "auto_gptq", group_size=32).build()
    with pytest.raises(EffectError, match=r"left layer model\.layers\.0\.self_attn\.q_proj as it was"):
        method.take_back(tiny.llama(), tmp_path)


@pytest.mark.parametrize("library", LIBRARIES)
def test_without_an_interpreter_the_plan_says_how_to_get_one(library: str) -> None:
    choice = tiny.choose("quantizer", library)
    problems = list(choice.method.check(choice.config, compose(), tiny.llama()))
    make = f"`make {library.replace('_', '-')}-env` makes one"
    assert f"set quantizer.python ({make})" in str(problems[0])
    with pytest.raises(IncompatibleError, match=r"set quantizer\.python"):
        choice.build().quantize(tiny.llama(), Calibration(batches_BT=[], sha256=""))


@pytest.mark.parametrize("library", LIBRARIES)
def test_an_interpreter_without_the_library_is_named(library: str) -> None:
    here = tiny.choose("quantizer", library, python=sys.executable)
    reason = here.method.unavailable(here.config)  # type: ignore[attr-defined]
    assert f"cannot import {library}: PackageNotFoundError" in reason
    missing = tiny.choose("quantizer", library, python="nowhere/python")
    assert "no interpreter at nowhere/python" in missing.method.unavailable(missing.config)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("#!/bin/sh\nsleep 5", r"importing it there took more than 0\.2 s"),
        ("#!/bin/sh\necho not json", "not json"),
        ("", "is no interpreter"),
    ],
)
def test_what_is_no_working_interpreter_is_a_problem_of_the_plan(
    script: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_interpreter, "PATIENCE", 0.2)
    file = tmp_path / "python"
    file.write_text(script)
    file.chmod(0o700 if script else 0o600)
    choice = tiny.choose("quantizer", "gptqmodel", python=str(file))
    with pytest.raises(IncompatibleError, match=said):
        choice.build().quantize(tiny.llama(), Calibration(batches_BT=[], sha256=""))


def test_our_own_family_is_refused_with_what_to_do() -> None:
    ours = tiny.llama()
    ours.config.model_type = "harness"
    choice = tiny.choose("quantizer", "auto_gptq", group_size=32)
    problems = list(choice.method.check(choice.config, compose(), ours))
    assert "quantize a checkpoint with model=pretrained" in str(problems[0])
    assert external.unknown_family(tiny.llama()) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 1}, "bits=1 must be 2, 3, 4 or 8"),
        ({"group_size": 0}, "group_size=0 must be at least 1, or null for all inputs"),
        ({"damping": 1.0}, "damping=1.0 must be in"),
        ({"batch_size": 0}, "batch_size=0 must be at least 1"),
    ],
)
def test_options_no_library_takes_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        tiny.choose("quantizer", "auto_gptq", **options)


def test_sizes_that_do_not_fit_are_problems_of_the_plan() -> None:
    method = tiny.choose("quantizer", "auto_gptq", group_size=48).build()
    assert "must divide its 64 inputs" in str(method.layer_problems(64, 32))
    assert "multiples of 32" in str(method.layer_problems(40, 32))


def test_a_script_that_fails_says_why(tmp_path: Path) -> None:
    from harness_plugins.quantizer._interpreter import call

    script = tmp_path / "broken.py"
    script.write_text("raise ValueError('no such thing')")
    with pytest.raises(HarnessError, match=r"broken\.py ended with 1:(.|\n)*no such thing"):
        call(sys.executable, script, within=tmp_path)


def test_what_a_library_leaves_lies_in_the_folder_it_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from harness_plugins.quantizer._interpreter import call

    own, users = tmp_path / "own", tmp_path / "users"
    own.mkdir(), users.mkdir()
    (tmp_path / "logging.py").write_text("import pathlib\npathlib.Path('logs').mkdir()")
    monkeypatch.chdir(users)
    call(os.path.relpath(sys.executable), tmp_path / "logging.py", within=own)
    assert (own / "logs").is_dir()
    assert not (users / "logs").exists()


@pytest.mark.parametrize("library", ["auto_gptq", "gptqmodel"])
def test_the_worker_imports_the_library_and_not_its_plugin(library: str, tmp_path: Path) -> None:
    (tmp_path / "options.json").write_text(json.dumps({"library": library}))
    (tmp_path / "calibration.json").write_text("[]")
    with pytest.raises(HarnessError, match=f"No module named '{library}'"):
        call(sys.executable, external.WORKER, str(tmp_path), str(tmp_path / "out"), within=tmp_path)
