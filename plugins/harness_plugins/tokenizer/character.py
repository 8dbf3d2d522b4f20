"""Characters as tokens: nothing is merged."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness import SPECIAL_TOKENS, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._trainer import ranked_characters


class Character(Tokenizer):
    """One token a Unicode character of the training text, the most frequent ones where there is not room
    for all; others are unknown.

    Paper: Sutskever et al. 2011, Generating Text with Recurrent Neural Networks
    Error: not lossless; the stage's facts state the unknown rate
    """

    name = "character"
    lossless = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        train_bytes: int | None = None
        """UTF-8 bytes of training text whose characters are counted; null takes all."""

    config: Config

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Regex, decoders, models, pre_tokenizers
        from tokenizers import Tokenizer as RustTokenizer

        entries = [*SPECIAL_TOKENS, *ranked_characters(texts)][: self.config.vocab_size]
        vocabulary = {entry: index for index, entry in enumerate(entries)}
        tokenizer = RustTokenizer(models.WordLevel(vocab=vocabulary, unk_token="<|unk|>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        return tokenizer


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Character]
