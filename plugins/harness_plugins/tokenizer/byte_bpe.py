"""Byte-level byte-pair encoding: merges over the 256 bytes, so nothing is ever unknown."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from harness import SPECIAL_TOKENS, Method, Tokenizer, hookimpl

if TYPE_CHECKING:
    from tokenizers import Tokenizer as RustTokenizer


class ByteBpe(Tokenizer):
    """BPE over bytes, numbers split into digits.

    Paper: Sennrich et al. 2015, arXiv:1508.07909; on bytes: Radford et al. 2019 (GPT-2)
    """

    name = "byte_bpe"

    @classmethod
    def min_vocab_size(cls) -> int:
        return len(SPECIAL_TOKENS) + 256

    def train(self, texts: Iterator[str]) -> "RustTokenizer":
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer = RustTokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=self.config.vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return tokenizer


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ByteBpe]
