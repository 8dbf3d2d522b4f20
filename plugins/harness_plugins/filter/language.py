"""Language filter: keeps documents in the languages asked for."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness import ConfigError, Document, Filter, Method, MissingExtraError, Split, hookimpl


class Language(Filter):
    """Identifies the language of running text with py3langid (97 languages, offline).

    Paper: Lui and Baldwin 2012, langid.py; survey section 4.1.2
    Error: program code has no language; leave its domain out with `domains`
    """

    name = "language"
    extra = "data"
    libraries = ("py3langid",)

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        languages: list[str] = field(default_factory=lambda: ["en"])
        """ISO 639-1 codes to keep."""
        min_probability: float = 0.5
        """Least probability of the language found (0 to 1)."""
        max_characters: int = 4_000
        """Leading characters that are looked at."""

        def __post_init__(self) -> None:
            if not self.languages:
                raise ConfigError("filter.language.languages=[] must name a language, e.g. [en]")
            if not 0 <= self.min_probability <= 1:
                raise ConfigError(
                    f"filter.language.min_probability={self.min_probability} must lie in [0, 1]"
                )

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> tuple[Config, Document, Document]:
        english = (
            "The library keeps a list of all open files, and closes each of them when it is no longer used."
        )
        german = (
            "Die Bibliothek merkt sich alle offenen Dateien und schliesst jede, sobald niemand sie braucht."
        )
        return (
            cls.Config(),
            Document(id="en", text=english, domain="docs", split=Split.train),
            Document(id="de", text=german, domain="docs", split=Split.train),
        )

    @cached_property
    def identifier(self) -> Any:
        """py3langid's identifier with probabilities."""
        try:
            from py3langid import langid
        except ImportError as error:
            raise MissingExtraError(package="py3langid", extra="data", needed_by="filter=language") from error
        identifier = langid.LanguageIdentifier.from_model_file(langid.MODEL_FILE, norm_probs=True)
        unknown = sorted(set(self.config.languages) - set(identifier.labels))
        if unknown:
            known = ", ".join(sorted(identifier.labels))
            raise ConfigError(f"filter.language.languages names {unknown}; known: {known}")
        return identifier

    def judge(self, document: Document) -> Document | str:
        language, probability = self.identifier.classify(document.text[: self.config.max_characters])
        if language not in self.config.languages:
            return f"language {language}"
        return document if probability >= self.config.min_probability else "uncertain language"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Language]
