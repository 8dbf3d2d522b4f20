"""Tokenizer: text to token ids and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.method import Method

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer

SPECIAL_TOKENS = (
    "<|pad|>",
    "<|bos|>",
    "<|eos|>",
    "<|unk|>",
    "<|user|>",
    "<|assistant|>",
    "<|mask|>",
)
"""Special tokens of every tokenizer trained here, ids 0 to 6 in this order."""


class Tokenizer(Method):
    """Learns a vocabulary from text; what it yields is a `tokenizers.Tokenizer`, saved as tokenizer.json
    and loaded everywhere as transformers' PreTrainedTokenizerFast.

    Error: `decode(encode(x)) == x` for any Unicode where `lossless`
    """

    axis = "tokenizer"
    default = "byte_bpe"
    lossless: bool = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        vocab_size: int = 1024
        """Entries of the vocabulary, special tokens included."""

    @abstractmethod
    def train(self, texts: Iterator[str]) -> RustTokenizer:
        """A tokenizer learned from `texts`, with SPECIAL_TOKENS as its first ids."""
        raise NotImplementedError
