"""Bytes as tokens: no vocabulary to learn."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import SPECIAL_TOKENS, ConfigError, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._trainer import alphabet

VOCAB_SIZE = len(SPECIAL_TOKENS) + 256


class Byte(Tokenizer):
    """One token a UTF-8 byte.

    Paper: Xue et al. 2021, arXiv:2105.13626 (ByT5)
    """

    name = "byte"

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        vocab_size: int = VOCAB_SIZE
        """Special tokens and the 256 bytes; nothing else is possible."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.vocab_size != VOCAB_SIZE:
                raise ConfigError(f"tokenizer.vocab_size={self.vocab_size} must be {VOCAB_SIZE} for bytes")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        return cls.Config()

    @classmethod
    def min_vocab_size(cls) -> int:
        return VOCAB_SIZE

    @classmethod
    def bytes_per_token(cls, config: Any) -> float:
        return 1.0

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import decoders, models, pre_tokenizers

        entries = [*SPECIAL_TOKENS, *alphabet()]
        tokenizer = RustTokenizer(models.BPE(vocab={e: i for i, e in enumerate(entries)}, merges=[]))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        return tokenizer


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Byte]
