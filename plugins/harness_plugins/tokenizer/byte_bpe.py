"""Byte-level byte-pair encoding: merges over the 256 bytes, so nothing is ever unknown."""

from collections.abc import Iterator
from typing import Any

from harness import SPECIAL_TOKENS, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._trainer import alphabet, byte_level, learn


class ByteBpe(Tokenizer):
    """BPE over bytes, numbers split into digits.

    Paper: Sennrich et al. 2015, arXiv:1508.07909; on bytes: Radford et al. 2019 (GPT-2)
    """

    name = "byte_bpe"

    @classmethod
    def min_vocab_size(cls) -> int:
        return len(SPECIAL_TOKENS) + 256

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import models, trainers

        tokenizer = RustTokenizer(models.BPE())
        tokenizer.pre_tokenizer, tokenizer.decoder = byte_level()
        trainer = trainers.BpeTrainer(
            vocab_size=self.config.vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=alphabet(),
            show_progress=False,
        )
        return learn(tokenizer, trainer, texts)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ByteBpe]
