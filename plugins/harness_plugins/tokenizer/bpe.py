"""Byte-pair encoding over characters, as first used for translation."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness import SPECIAL_TOKENS, ConfigError, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._trainer import frequent_characters, learn


class Bpe(Tokenizer):
    """Most frequent pairs of characters merged within words; characters never seen are unknown.

    Paper: Sennrich et al. 2015, arXiv:1508.07909
    Error: not lossless; the stage's facts state the unknown rate
    """

    name = "bpe"
    lossless = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        max_characters: int = 256
        """Most frequent characters kept as entries; the others are unknown."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.max_characters < 1:
                raise ConfigError(f"tokenizer.max_characters={self.max_characters} must be at least 1")

    config: Config

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer = RustTokenizer(models.BPE(unk_token="<|unk|>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
        known = list(texts)
        room = self.config.vocab_size - len(SPECIAL_TOKENS) - 1
        characters = ["\u2581", *frequent_characters(known, min(self.config.max_characters, room))]
        trainer = trainers.BpeTrainer(
            vocab_size=self.config.vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=characters,
            limit_alphabet=len(characters),
            show_progress=False,
        )
        return learn(tokenizer, trainer, known)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Bpe]
