"""SentencePiece's byte-pair encoding: learned from raw text, spaces included, as in LLaMA."""

from collections.abc import Iterator
from typing import Any

from harness import SPECIAL_TOKENS, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._sentencepiece import BPE_BYTES_PER_TOKEN, SPACE, learn, wrap


class SentencePieceBpe(Tokenizer):
    """BPE learned by sentencepiece; unseen characters fall back to bytes.

    Paper: Kudo and Richardson 2018, arXiv:1808.06226
    Error: lossless but for U+2581, which stands for a space
    """

    name = "sentencepiece_bpe"
    lossy_characters = SPACE
    extra = "data"
    libraries = ("sentencepiece",)
    typical_bytes_per_token = BPE_BYTES_PER_TOKEN

    @classmethod
    def min_vocab_size(cls) -> int:
        return len(SPECIAL_TOKENS) + 256 + 100

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import models

        pieces = learn(texts, model_type="bpe", vocab_size=self.config.vocab_size)
        vocab = {pieces.id_to_piece(i): i for i in range(pieces.get_piece_size())}
        learned = {p: i for p, i in vocab.items() if not pieces.is_byte(i) and i >= len(SPECIAL_TOKENS)}
        merges = [
            (piece[:cut], piece[cut:])
            for piece in sorted(learned, key=lambda p: -pieces.get_score(learned[p]))
            for cut in range(1, len(piece))
            if piece[:cut] in learned and piece[cut:] in learned
        ]
        return wrap(models.BPE(vocab, merges, unk_token="<|unk|>", fuse_unk=True, byte_fallback=True))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SentencePieceBpe]
