"""Vocabularies learned by the sentencepiece library, written out as `tokenizers.Tokenizer`."""

import io
import re
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any

from harness import SPECIAL_TOKENS, ConfigError, MissingExtraError

LONGEST = 2**30
"""Bytes of a line; the library drops longer ones without a word, at 4,192 by default."""
SPACE = "\u2581"
OPENING = f"<(?={'|'.join(re.escape(token[1:]) for token in SPECIAL_TOKENS)}|0x[0-9A-F]{{2}}>)"
"""The `<` of a special token or of a byte's piece that stands in a text."""

BPE_BYTES_PER_TOKEN = MappingProxyType(
    {512: 1.54, 1024: 1.94, 2048: 2.20, 4096: 2.40, 8192: 2.53, 32000: 3.8}
)
UNIGRAM_BYTES_PER_TOKEN = MappingProxyType(
    {512: 1.48, 1024: 1.81, 2048: 2.04, 4096: 2.24, 8192: 2.46, 32000: 3.8}
)
"""Measured on the embedded corpus, whose indents cost it more than byte-level BPE, as no piece is of spaces
alone (32,000: English, LLaMA's order)."""


def learn(texts: Iterator[str], *, model_type: str, vocab_size: int) -> Any:
    """The sentencepiece processor of a model learned from the lines of `texts`.

    Raises: MissingExtraError, ConfigError with the library's reason where the vocabulary cannot be learned
    """
    try:
        import sentencepiece
    except ImportError as error:
        needed_by = f"tokenizer=sentencepiece_{model_type}"
        raise MissingExtraError(package="sentencepiece", extra="data", needed_by=needed_by) from error
    roles = ("pad", "bos", "eos", "unk")
    special: dict[str, Any] = {"user_defined_symbols": list(SPECIAL_TOKENS[len(roles) :])}
    for index, (role, token) in enumerate(zip(roles, SPECIAL_TOKENS, strict=False)):
        special |= {f"{role}_id": index, f"{role}_piece": token}
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=(line for text in texts for line in text.split("\n") if line),
            model_writer=model,
            model_type=model_type,
            vocab_size=vocab_size,
            normalization_rule_name="identity",
            byte_fallback=True,
            remove_extra_whitespaces=False,
            add_dummy_prefix=False,
            split_digits=True,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
            max_sentence_length=LONGEST,
            **special,
        )
    except RuntimeError as error:
        raise ConfigError(f"tokenizer.vocab_size={vocab_size}: sentencepiece refuses: {error}") from error
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def wrap(model: Any) -> Any:
    """A tokenizer around a model whose vocabulary came from sentencepiece: spaces, bytes, special tokens."""
    from tokenizers import Regex, decoders, normalizers, pre_tokenizers
    from tokenizers import Tokenizer as RustTokenizer

    tokenizer = RustTokenizer(model)
    # The library's unigram model finds every entry in a text, those that stand for something else as well.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(OPENING), "isolated")
    tokenizer.normalizer = normalizers.Replace(" ", SPACE)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
