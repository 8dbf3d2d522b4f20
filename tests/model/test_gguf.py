"""GGUF in: the directory it becomes computes what the file holds, and nothing half-written is left."""

from __future__ import annotations

import json
import re
from collections import namedtuple
from pathlib import Path

import pytest
import tiny_models as tiny
import torch
from tokenizers import Tokenizer, decoders, models, trainers
from tokenizers.pre_tokenizers import ByteLevel

from harness.axes.tokenizer import SPECIAL_TOKENS
from harness.data.tokenization import load_tokenizer, save_tokenizer
from harness.errors import DataError, StoreFullError
from harness.model import gguf
from harness.model.artifact import load_pretrained
from harness.model.checkpoint import import_checkpoint, read_config
from harness.model.gguf import dequantized, gguf_config

TEXT = "def f(x): return x  # defines f"
IDS = torch.arange(7, 27)[None]


def trained() -> Tokenizer:
    """A byte-level BPE with a few merges."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = list(SPECIAL_TOKENS)
    trainer = trainers.BpeTrainer(
        vocab_size=tiny.VOCABULARY + 4, special_tokens=special, initial_alphabet=ByteLevel.alphabet()
    )
    made.train_from_iterator([TEXT] * 9, trainer)
    return made


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama in Q5_1 with its tokenizer, written by the `gguf` library."""
    root = tmp_path_factory.mktemp("gguf")
    save_tokenizer(trained(), root / "tokenizer")
    method = tiny.choose("quantizer", "gguf", format="q5_1").build()
    model = tiny.llama(dim=64, kv_heads=2)
    model.resize_token_embeddings(tiny.VOCABULARY + 4)
    written: Path = method.write_file(model, load_tokenizer(root / "tokenizer"), root)  # type: ignore[attr-defined]
    return written


def test_the_directory_computes_what_transformers_reads(file: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    made = dequantized(file, root=tmp_path)
    ours = load_pretrained(str(made))
    imported = import_checkpoint(made)
    with torch.no_grad():
        expected = theirs(input_ids=IDS).logits
        assert torch.equal(ours.model(input_ids=IDS).logits, expected)
        assert torch.allclose(imported(input_ids=IDS).logits, expected, atol=1e-4)


def test_its_tokenizer_splits_as_the_one_that_was_written(file: Path, tmp_path: Path) -> None:
    read = load_pretrained(str(dequantized(file, root=tmp_path))).tokenizer
    for text in (TEXT, "returns defined", "caf\u00e9 \U0001f600\n"):
        ids = read(text, add_special_tokens=False)["input_ids"]
        assert ids == trained().encode(text, add_special_tokens=False).ids
        assert read.decode(ids) == text


def test_making_it_says_so_once_and_shows_no_bars(
    file: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        dequantized(file, root=tmp_path)
    said = capfd.readouterr()
    assert said.out == ""
    assert re.fullmatch(rf"harness: {file.name} is written into the store .*, once \(\d+ MiB\)\n", said.err)


def test_it_is_made_once_and_says_from_what(file: Path, tmp_path: Path) -> None:
    made = dequantized(file, root=tmp_path)
    stamp = (made / "model.safetensors").stat().st_mtime_ns
    copy = tmp_path / "elsewhere.gguf"
    copy.write_bytes(file.read_bytes())
    assert dequantized(copy, root=tmp_path) == made, "the same content"
    assert (made / "model.safetensors").stat().st_mtime_ns == stamp
    origin = json.loads((made / "gguf.json").read_text())
    assert origin["file"] == file.name
    assert origin["types"]["Q5_1"] == 7 * 2, "seven projections in each of two layers"


def test_its_config_is_known_before_and_after(file: Path, tmp_path: Path) -> None:
    gguf._MADE.clear()
    before = gguf_config(file)
    dequantized(file, root=tmp_path)
    for key in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        assert before[key] == read_config(file)[key]


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_file_is_refused(keep: float, file: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.gguf"
    content = file.read_bytes()
    cut.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(DataError, match=r"cut\.gguf is no whole GGUF file"):
        dequantized(cut, root=tmp_path / "store")
    assert not list((tmp_path / "store").rglob("*.safetensors"))


def test_an_architecture_that_transformers_cannot_read_is_refused(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "odd.gguf", "clip")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(DataError, match="transformers cannot read"):
        dequantized(tmp_path / "odd.gguf", root=tmp_path / "store")
    assert not list((tmp_path / "store" / "imports").iterdir())


def test_a_disk_without_room_is_told_before_anything_is_written(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(gguf.shutil, "disk_usage", lambda path: usage(1, 1, 1000))
    with pytest.raises(StoreFullError, match="MiB when dequantized"):
        dequantized(file, root=tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        dequantized(tmp_path / "no.gguf", root=tmp_path)
