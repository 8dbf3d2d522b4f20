"""WordPiece: merges chosen by likelihood gain, longest match first, as in BERT."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness import SPECIAL_TOKENS, ConfigError, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._trainer import learn


class WordPiece(Tokenizer):
    """Words at whitespace and punctuation, then the longest known piece from the left.

    Paper: Schuster and Nakajima 2012; Devlin et al. 2018, arXiv:1810.04805
    Differs: the library learns pieces by BPE counts, as its documentation says
    Error: not lossless; whitespace is normalised, and the stage's facts state the unknown rate
    """

    name = "wordpiece"
    lossless = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Tokenizer.Config):
        max_characters: int = 256
        """Most frequent characters kept as entries; words with others are unknown."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.max_characters < 1:
                raise ConfigError(f"tokenizer.max_characters={self.max_characters} must be at least 1")

    config: Config

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import decoders, models, pre_tokenizers, trainers

        tokenizer = RustTokenizer(models.WordPiece(unk_token="<|unk|>"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.config.vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            limit_alphabet=min(self.config.max_characters, self.config.vocab_size - len(SPECIAL_TOKENS)),
            show_progress=False,
        )
        return learn(tokenizer, trainer, texts)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [WordPiece]
