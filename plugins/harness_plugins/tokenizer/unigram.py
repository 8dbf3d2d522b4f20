"""Unigram: a large seed vocabulary pruned by likelihood, read out by Viterbi."""

from collections.abc import Iterator
from typing import Any

from harness import SPECIAL_TOKENS, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._trainer import alphabet, byte_level, learn


class Unigram(Tokenizer):
    """Unigram language model over bytes, trained by EM.

    Paper: Kudo 2018, arXiv:1804.10959
    Differs: over bytes instead of characters, so that nothing is unknown
    Error: the library adds in parallel and breaks ties by chance, so two trainings may differ in a few pieces
    """

    name = "unigram"
    reproducible = False

    @classmethod
    def min_vocab_size(cls) -> int:
        return len(SPECIAL_TOKENS) + 256

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import models, trainers

        tokenizer = RustTokenizer(models.Unigram())
        tokenizer.pre_tokenizer, tokenizer.decoder = byte_level()
        trainer = trainers.UnigramTrainer(
            vocab_size=self.config.vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=alphabet(),
            unk_token="<|unk|>",
            show_progress=False,
        )
        return learn(tokenizer, trainer, texts)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Unigram]
