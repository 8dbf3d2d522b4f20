"""What the tokenizers learned with Hugging Face's `tokenizers` share."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from harness import SPECIAL_TOKENS


def byte_level() -> tuple[Any, Any]:
    """Pre-tokenizer and decoder over the 256 bytes; digits stand alone."""
    from tokenizers import decoders, pre_tokenizers

    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    return split, decoders.ByteLevel()


def alphabet() -> list[str]:
    """The characters that stand for the 256 bytes, in a fixed order."""
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def ranked_characters(texts: Iterable[str]) -> list[str]:
    """All characters by frequency, ties by code point: the library would break them by chance."""
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(text)
    return sorted(counts, key=lambda c: (-counts[c], c))


def frequent_characters(texts: Iterable[str], number: int) -> list[str]:
    """The most frequent characters but spaces."""
    return [c for c in ranked_characters(texts) if c != " "][:number]


def learn(tokenizer: Any, trainer: Any, texts: Iterable[str]) -> Any:
    """The tokenizer after training, with every special token registered as such."""
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer
