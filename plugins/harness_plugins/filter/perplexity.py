"""Perplexity filter: drops text that a language model finds too surprising, or not at all."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import (
    ConfigError,
    Document,
    Filter,
    Method,
    Split,
    hookimpl,
    model_ref,
    path_ref,
    read_text,
    text_surprise,
)
from harness_plugins.filter._ngram import ByteNgram


class Perplexity(Filter):
    """Keeps documents between two limits of bits per byte under a reference model.

    Paper: Wenzek et al. 2019, arXiv:1911.00359; survey section 4.1.2 (metric-based filtering)
    Differs: bits per byte instead of perplexity per token, so limits hold for any tokenizer
    Units: bits per UTF-8 byte
    """

    name = "perplexity"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        model: str = model_ref()
        """Model to read with; empty takes a byte 5-gram model learned from `reference`."""
        reference: str = path_ref()
        """Text file or folder for the 5-gram model; empty takes Python's language reference."""
        min_bits: float = 0.3
        """Least bits per byte; less is repetition."""
        max_bits: float = 4.0
        """Most bits per byte; more is not this language."""
        max_characters: int = 20_000
        """Leading characters that are read."""

        def __post_init__(self) -> None:
            if not 0 <= self.min_bits < self.max_bits:
                raise ConfigError(
                    f"filter.perplexity.min_bits={self.min_bits} must be below max_bits={self.max_bits}"
                )

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        text = "The value of the expression is the object to which the name was bound by the assignment. "
        (directory / "reference.txt").write_text(text * 30)
        noise = "qzx7 vv jjk9 wq zzq xk qp0 ggh vvk jq xz9 kk wv zq jx pq qk vz xj kq zw"
        return (
            cls.Config(reference=str(directory / "reference.txt"), min_bits=0.0),
            Document(id="prose", text=text, domain="docs", split=Split.train),
            Document(id="noise", text=noise, domain="docs", split=Split.train),
        )

    @classmethod
    def check_files(cls, config: Any) -> None:
        for file in cls.files(config, "reference"):
            read_text(file)

    def prepare(self) -> None:
        if self.config.model:
            return
        if self.config.reference:
            self.ngram = ByteNgram(read_text(path) for path in self.files(self.config, "reference"))
        else:
            from pydoc_data.topics import topics

            self.ngram = ByteNgram(topics.values())

    def judge(self, document: Document) -> Document | str:
        text = document.text[: self.config.max_characters]
        if self.config.model:
            bits = text_surprise(*self.models["model"], text)
        else:
            bits = self.ngram.bits_per_byte(text)
        if bits > self.config.max_bits:
            return "too surprising"
        return document if bits >= self.config.min_bits else "too repetitive"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Perplexity]
