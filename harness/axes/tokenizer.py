"""Tokenizer: text to token ids and back."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, ClassVar

from harness.errors import ConfigError
from harness.method import CellView, Method, Problem, check_limits

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer as RustTokenizer
    from torch import nn

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

    Error: `decode(encode(x)) == x` for any Unicode without `lossy_characters` where `lossless`
    """

    axis = "tokenizer"
    default = "byte_bpe"
    moves_facts = frozenset({"counts", "vocab_size"})
    lossless: bool = True
    reproducible: bool = True
    """Whether the same texts always give the same vocabulary."""
    lossy_characters: str = ""
    """Characters that do not survive although everything else does."""
    typical_bytes_per_token: ClassVar[Mapping[int, float]] = MappingProxyType(
        {320: 1.58, 512: 2.07, 1024: 2.58, 2048: 2.99, 4096: 3.34, 8192: 3.61, 32000: 4.0}
    )
    """UTF-8 bytes of a token by the size of the vocabulary, for plans before any text is seen: of byte-level
    BPE, measured on the embedded corpus (32,000: English, GPT-2's order)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        vocab_size: int = 1024
        """Entries of the vocabulary, special tokens included."""
        train_bytes: int | None = 4_000_000
        """UTF-8 bytes of training text the vocabulary is learned from; null = all."""

        def __post_init__(self) -> None:
            check_limits(self, "tokenizer", "train_bytes")
            if self.vocab_size < 1:
                raise ConfigError(f"tokenizer.vocab_size={self.vocab_size} must be at least 1")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        """Options the conformance suite runs it with; writes the small input it needs into `directory`."""
        return cls.Config(vocab_size=max(400, cls.min_vocab_size()))

    @classmethod
    def min_vocab_size(cls) -> int:
        """Fewest entries the method can work with."""
        return len(SPECIAL_TOKENS) + 1

    @classmethod
    def check(cls, config: Config, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        if config.vocab_size < cls.min_vocab_size():
            yield Problem(
                where="tokenizer.vocab_size",
                message=f"{config.vocab_size} is too few for {cls.name}; use at least {cls.min_vocab_size()}",
            )

    @classmethod
    def bytes_per_token(cls, config: Config) -> float | None:
        """UTF-8 bytes of a token, where the options fix it before any text is seen; for plans."""
        return None

    @abstractmethod
    def train(self, texts: Iterator[str]) -> RustTokenizer:
        """A tokenizer learned from `texts`, with SPECIAL_TOKENS as its first ids."""
        raise NotImplementedError

    def directory(self) -> Path | None:
        """A Hugging Face directory to take as it is instead of training; None where the method trains."""
        return None
