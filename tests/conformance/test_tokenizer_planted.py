"""The suite of tokenizers catches what it should."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import decoders, models, normalizers, pre_tokenizers
from told import told

from harness import SPECIAL_TOKENS, Tokenizer
from harness.conformance import test_tokenizer as suite


class Base(Tokenizer):
    """Bytes, and right."""

    name = "planted"

    def train(self, texts: Iterator[str]) -> Any:
        return built([*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())])


def built(entries: list[str]) -> Any:
    """A byte tokenizer with these entries."""
    tokenizer = RustTokenizer(models.BPE(vocab={e: i for i, e in enumerate(entries)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


class SpecialLast(Base):
    name = "special_last"

    def train(self, texts: Iterator[str]) -> Any:
        return built([*sorted(pre_tokenizers.ByteLevel.alphabet()), *SPECIAL_TOKENS])


class Lowercase(Base):
    name = "lowercase"

    def train(self, texts: Iterator[str]) -> Any:
        tokenizer = super().train(texts)
        tokenizer.normalizer = normalizers.Lowercase()
        return tokenizer


class Composing(Base):
    """NFKC changes characters that the training text does not hold."""

    name = "composing"

    def train(self, texts: Iterator[str]) -> Any:
        tokenizer = super().train(texts)
        tokenizer.normalizer = normalizers.NFKC()
        return tokenizer


class Chance(Base):
    name = "chance"

    def train(self, texts: Iterator[str]) -> Any:
        entries = sorted(pre_tokenizers.ByteLevel.alphabet())
        random.SystemRandom().shuffle(entries)
        return built([*SPECIAL_TOKENS, *entries])


class Greedy(Base):
    name = "greedy"

    def train(self, texts: Iterator[str]) -> Any:
        entries = sorted(pre_tokenizers.ByteLevel.alphabet())
        return built([*SPECIAL_TOKENS, *entries, *(f"<{i}>" for i in range(500))])


class SplitsSpecial(Base):
    name = "splits_special"

    def train(self, texts: Iterator[str]) -> Any:
        entries = [*SPECIAL_TOKENS, *sorted(pre_tokenizers.ByteLevel.alphabet())]
        tokenizer = RustTokenizer(models.BPE(vocab={e: i for i, e in enumerate(entries)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        return tokenizer


def test_a_right_tokenizer_passes(tmp_path: Path) -> None:
    for name, test in vars(suite).items():
        if name.startswith("test_"):
            test(Base, tmp_path)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (SpecialLast, suite.test_special_tokens_come_first),
        (Greedy, suite.test_the_vocabulary_is_no_larger_than_asked),
        (Chance, suite.test_training_twice_gives_the_same_tokens),
        (Lowercase, suite.test_text_it_learned_from_survives),
        (Composing, suite.test_any_unicode_survives_where_lossless),
        (SplitsSpecial, suite.test_special_tokens_are_never_split_nor_merged),
        (SpecialLast, suite.test_saved_and_loaded_it_is_the_same),
    ],
)
def test_a_planted_bug_is_caught(method: type[Tokenizer], test: object, tmp_path: Path) -> None:
    with told():
        test(method, tmp_path)  # type: ignore[operator]
