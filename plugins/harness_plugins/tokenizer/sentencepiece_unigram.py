"""SentencePiece's unigram model: learned from raw text, spaces included."""

from collections.abc import Iterator
from typing import Any

from harness import SPECIAL_TOKENS, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._sentencepiece import SPACE, UNIGRAM_BYTES_PER_TOKEN, learn, wrap


class SentencePieceUnigram(Tokenizer):
    """Unigram language model learned by sentencepiece; unseen characters fall back to bytes.

    Paper: Kudo and Richardson 2018, arXiv:1808.06226; Kudo 2018, arXiv:1804.10959
    Error: lossless but for U+2581, which stands for a space
    """

    name = "sentencepiece_unigram"
    lossy_characters = SPACE
    extra = "data"
    libraries = ("sentencepiece",)
    typical_bytes_per_token = UNIGRAM_BYTES_PER_TOKEN

    @classmethod
    def min_vocab_size(cls) -> int:
        return len(SPECIAL_TOKENS) + 256 + 100

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import models

        pieces = learn(texts, model_type="unigram", vocab_size=self.config.vocab_size)
        vocab = [(pieces.id_to_piece(i), pieces.get_score(i)) for i in range(pieces.get_piece_size())]
        return wrap(models.Unigram(vocab, unk_id=pieces.unk_id(), byte_fallback=True))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SentencePieceUnigram]
