"""Encoding by all cores: the ids of one text at a time, in their order, however batches are cut."""

import os
from pathlib import Path

import pytest
from harness_plugins.tokenizer.byte_bpe import ByteBpe

from harness.data import tokenization

TEXTS = [f"Page {number} says {'much ' * (number * 37 % 101)}\n" for number in range(400)]


@pytest.mark.parametrize("characters", [1, 1000, 10**6])
def test_all_cores_give_the_ids_of_one(
    characters: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tokenization, "CHARACTERS_PER_BATCH", characters)
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    tokenization.save_tokenizer(ByteBpe(ByteBpe.Config(vocab_size=300)).train(iter(TEXTS)), tmp_path)
    rust = tokenization.load_rust(tmp_path)
    with tokenization.all_cores():
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
        found = [list(ids) for ids in tokenization.encode(rust, iter(TEXTS))]
    assert found == [rust.encode(text, add_special_tokens=False).ids for text in TEXTS]
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    assert "RAYON_NUM_THREADS" not in os.environ
