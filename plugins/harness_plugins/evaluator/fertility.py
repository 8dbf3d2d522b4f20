"""Fertility: how many tokens a tokenizer needs for a word or a character of several languages."""

import importlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import nn

from harness import (
    ConfigError,
    DataError,
    Evaluation,
    Evaluator,
    Method,
    Metric,
    MissingExtraError,
    Problem,
    Subject,
    encode_plain,
    hookimpl,
    item_hashes,
    path_ref,
    read_text,
)

SENTENCES = "evaluator=[fertility] without path"
UNSPACED = frozenset(["ja", "zh", "th", "lo", "km", "my", "bo"])
"""Languages that put no spaces between words."""


class Fertility(Evaluator):
    """Tokens a word, and UTF-8 bytes a token, of each language; the model is not run.

    Paper: Rust et al. 2021, arXiv:2012.15613, section 3.1 (fertility); Petrov et al. 2023, arXiv:2305.15425
    Differs: words are what whitespace separates; a language without such spaces has no tokens a word
    Error: without `path`, spaCy's example sentences are read, 4 to 20 a language, most of them the same
        sentences in translation; a file of one's own says more
    """

    name = "fertility"
    draws = False
    extra = "data"

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        languages: list[str] = field(default_factory=lambda: ["en", "fr", "ru", "hi", "ja"])
        """ISO 639-1 codes, each a task."""
        path: str = path_ref(folder=True)
        """Folder with `<language>.txt`; empty takes spaCy's example sentences."""

        def __post_init__(self) -> None:
            if not self.languages:
                raise ConfigError("evaluator.fertility.languages=[] must name a language, e.g. [en]")

    config: Config

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        return tuple(dict.fromkeys(config.languages))

    @classmethod
    def only(cls, config: Any, task: str) -> Any:
        return replace(config, languages=[task])

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return _names(task)

    @classmethod
    def check_files(cls, config: Any) -> None:
        for language in config.languages if config.path else ():
            cls(config).texts(language)

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        texts = self.texts(task)
        tokens = [len(encode_plain(subject.tokenizer, text)["input_ids"]) for text in texts]
        samples = pd.DataFrame(
            {
                "task": task,
                "doc_hash": item_hashes(texts),
                "prompt": [f"{task}/{number}" for number in range(len(texts))],
                "tokens": tokens,
                "bytes": [len(text.encode()) for text in texts],
                "words": [len(text.split()) for text in texts],
            }
        )
        total = samples[["tokens", "bytes", "words"]].sum()
        values = {
            "tokens_per_word": total["tokens"] / total["words"],
            "bytes_per_token": total["bytes"] / total["tokens"],
        }
        metrics = [
            Metric(
                task=task,
                metric=name,
                value=float(values[name]),
                unit=unit,
                higher_is_better=better,
                n=len(texts),
            )
            for name, unit, better in (
                ("tokens_per_word", "tokens/word", False),
                ("bytes_per_token", "bytes/token", True),
            )
            if name in _names(task)
        ]
        return Evaluation(metrics=metrics, samples=samples)

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        if not config.path and find_spec("spacy") is None:
            absent = MissingExtraError(package="spacy", extra="data", needed_by=SENTENCES)
            yield Problem(where="evaluator.fertility.path", message=f"{absent}, or give a folder of texts")

    def texts(self, language: str) -> list[str]:
        """Sentences of spaCy, or lines of a file.

        Raises: MissingExtraError; ConfigError for a language without sentences; DataError without a file
        """
        if self.config.path:
            file = Path(self.config.path).expanduser() / f"{language}.txt"
            if not file.is_file():
                raise DataError(f"evaluator.fertility.path: {file} does not exist; write text into it")
            return [line for line in read_text(file).splitlines() if line.strip()]
        try:
            import spacy  # noqa: F401 - says what is missing before a language does
        except ImportError as error:
            raise MissingExtraError(package="spacy", extra="data", needed_by=SENTENCES) from error
        try:
            return list(importlib.import_module(f"spacy.lang.{language}.examples").sentences)
        except ModuleNotFoundError as error:
            raise ConfigError(
                f"evaluator.fertility.languages: spaCy has no sentences of '{language}'; give a folder with "
                f"{language}.txt by evaluator.fertility.path"
            ) from error


def _names(language: str) -> tuple[str, ...]:
    return ("bytes_per_token",) if language in UNSPACED else ("tokens_per_word", "bytes_per_token")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Fertility]
