"""The quantize stage: calibration is a declared input, and options of training enter no other key."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_models as tiny
import torch

from harness.compose import compose
from harness.data.token_files import TokenWriter
from harness.errors import DataError
from harness.ops.packed_linear import linear_layers
from harness.registry.known import registry
from harness.stages.quantize import Quantize

CALIBRATED = [
    "quantizer=gptq",
    "quantize.calibration_sequences=8",
    "quantize.calibration_length=16",
    "quantize.held_out_sequences=2",
]


def tokens(shelf: tiny.Shelf, count: int) -> tiny.FakeArtifact:
    """Token files of one document."""
    from harness.axes.corpus import Split

    artifact = shelf.new("tokens", "tokens")
    writer = TokenWriter(artifact.path, vocab_size=tiny.VOCABULARY, bos_id=1, eos_id=2)
    ids = np.random.default_rng(0).integers(7, tiny.VOCABULARY, count - 2)
    writer.add("train", "code", ids.tolist(), num_bytes=count)
    writer.finish(Split.train)
    writer.write_index({"code": 1.0})
    return artifact


def run(root: Path, *overrides: str, count: int = 4000, seed: int = 0) -> dict[str, Any]:
    """The stage on a Llama whose tokenizer is the token files' own."""
    from harness.model.artifact import save_model

    shelf = tiny.Shelf(root / "shelf")
    tokenizer = shelf.new("tokenizer", "tokenizer")
    tiny.byte_tokenizer(tokenizer.path)
    model = shelf.new("model")
    save_model(model.path, tiny.llama(), base={}, delta="weights", applied=[], tokenizer="tokenizer")
    inputs = {"model": model, "tokens": tokens(shelf, count)}
    work = tiny.work(shelf, "quantize", shelf.new("out"), [*overrides], inputs)
    work.seed = seed
    return registry().stage("quantize")().run(work)


def test_calibration_is_named_by_its_hash(tmp_path: Path) -> None:
    one, same = (run(tmp_path / name, *CALIBRATED) for name in ("one", "same"))
    other = run(tmp_path / "other", *CALIBRATED, seed=1)
    assert one["calibration_tokens"] == 8 * 16
    assert len(one["calibration_sha256"]) == 64
    assert one["calibration_sha256"] == same["calibration_sha256"] != other["calibration_sha256"]
    assert one["error_held_out_gptq"] > 0, "errors on inputs that nothing was fitted to"
    assert run(tmp_path / "plain", "quantizer=rtn")["calibration_sha256"] == ""


def test_calibration_windows_begin_as_scored_texts_do(tmp_path: Path) -> None:
    from harness.data.tokenization import load_tokenizer
    from harness.model.calibration import calibrate

    shelf = tiny.Shelf(tmp_path / "shelf")
    tokenizer = shelf.new("tokenizer", "tokenizer")
    tiny.byte_tokenizer(tokenizer.path)
    inputs = {"tokens": tokens(shelf, 4000)}
    work = tiny.work(shelf, "quantize", shelf.new("out"), [*CALIBRATED], inputs)
    loaded = SimpleNamespace(tokenizer=load_tokenizer(tokenizer.path), tokenizer_from="tokenizer")
    found = calibrate(work, loaded, held_out=2)  # type: ignore[arg-type]
    rows = torch.cat([*found.batches_BT, *found.held_out_BT])
    assert rows.shape == (10, 16)
    assert (rows[:, 0] == loaded.tokenizer.bos_token_id).all()
    assert len({tuple(row[1:].tolist()) for row in rows}) == 10


def test_the_record_says_which_share_of_the_weights_is_packed(tmp_path: Path) -> None:
    facts = run(tmp_path, "quantizer=rtn", "quantizer.bits=8")
    model = tiny.llama()
    whole = sum(p.numel() for p in model.parameters())
    packed = sum(layer.weight.numel() for layer in linear_layers(model).values())
    assert facts["packed_share"] == packed / whole
    assert facts["model_bits_per_weight"] == pytest.approx(8 * facts["model_bytes"] / whole)


def test_too_short_a_text_is_refused_with_what_to_lower(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needs 10 x 16 = 160 tokens .* has 100; lower"):
        run(tmp_path, *CALIBRATED, count=100)
    with pytest.raises(DataError, match=r"qat needs 128 training tokens and the training split has 100"):
        run(tmp_path / "qat", "quantizer=qat", "quantizer.data=tokens", count=100)


def test_training_on_tokens_and_labels(tmp_path: Path) -> None:
    facts = run(
        tmp_path,
        "quantizer=qat",
        "quantizer.data=tokens",
        "quantizer.distill=false",
        "quantize.sequence_length=32",
        "quantize.budget={unit: steps, amount: 3}",
    )
    assert facts["training"]["sequences"] == 4000 // 32
    assert facts["training"]["steps"] == 3


@pytest.mark.parametrize(("quantizer", "trains"), [("rtn", False), ("gptq", False), ("qat", True)])
def test_only_a_quantizer_that_trains_depends_on_how_one_trains(quantizer: str, trains: bool) -> None:
    cell = compose([f"quantizer={quantizer}", "optimizer=lion"])
    choices = {axis: cell.choice(axis, stage="quantize") for axis in ("quantizer", "optimizer", "schedule")}
    assert ("optimizer" in Quantize.narrow("", choices)) is trains  # type: ignore[arg-type]
