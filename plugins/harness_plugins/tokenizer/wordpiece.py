"""WordPiece: merges chosen by likelihood gain, longest match first, as in BERT."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from harness import SPECIAL_TOKENS, ConfigError, Method, Tokenizer, hookimpl
from harness_plugins.tokenizer._trainer import frequent_characters


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
        """Most frequent characters kept as entries (twice: at the start of words and inside); words with
        others are unknown."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.max_characters < 1:
                raise ConfigError(f"tokenizer.max_characters={self.max_characters} must be at least 1")

    config: Config

    def train(self, texts: Iterator[str]) -> Any:
        from tokenizers import Tokenizer as RustTokenizer
        from tokenizers import decoders, models, pre_tokenizers, trainers

        known = list(texts)
        room = (self.config.vocab_size - len(SPECIAL_TOKENS)) // 2
        characters = frequent_characters(known, min(self.config.max_characters, room))
        # Inner pieces of one character are fixed beforehand: the library would number them by chance.
        entries = [*SPECIAL_TOKENS, *characters, *(f"##{c}" for c in characters)]
        learner = RustTokenizer(models.WordPiece(unk_token="<|unk|>"))
        learner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(
            vocab_size=self.config.vocab_size,
            special_tokens=entries,
            limit_alphabet=0,
            show_progress=False,
        )
        learner.train_from_iterator(known, trainer)
        vocab = learner.get_vocab()
        tokenizer = RustTokenizer(models.WordPiece(vocab, unk_token="<|unk|>"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.decoder = decoders.WordPiece(prefix="##")
        tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
        return tokenizer


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [WordPiece]
