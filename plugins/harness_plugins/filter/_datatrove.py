"""What the filters that datatrove runs share."""

import re
from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

from harness import Document, Filter, MissingExtraError

SIGNS = re.compile(r"[^\w\s]{100}|_{100}")
CHARACTERS = re.compile(r"\S{1000}")
"""What spaCy peels sign after sign, in time that grows with the square of the number: rules, brackets."""


class Datatrove(Filter):
    """A filter of datatrove with its defaults as ours; English, split into words by spaCy's rules.

    Differs: a run of over 100 signs, or of over 1,000 characters without a space, is judged in pieces
    """

    extra = "data"
    libraries = ("datatrove", "spacy")

    rewrites: ClassVar[bool] = False
    """Whether it changes texts, which then are judged as they are."""

    @abstractmethod
    def build(self) -> Any:
        """datatrove's filter with these options."""
        raise NotImplementedError

    @cached_property
    def theirs(self) -> Any:
        """datatrove's filter, made once.

        Raises: MissingExtraError
        """
        try:
            import spacy  # noqa: F401 - datatrove imports it at the first document

            return self.build()
        except ImportError as error:
            raise MissingExtraError(
                package="datatrove", extra="data", needed_by=f"filter={self.name}"
            ) from error

    def judge(self, document: Document) -> Document | str:
        if not document.text.strip():
            return "empty"
        from datatrove.data import Document as Theirs

        text = document.text if self.rewrites else in_pieces(document.text)
        given = Theirs(text=text, id=document.id)
        verdict = self.theirs.filter(given)
        kept, reason = verdict if isinstance(verdict, tuple) else (verdict, "")
        if not kept:
            return str(reason).removeprefix("gopher_").replace("_", " ")
        return document if given.text == text else replace(document, text=given.text)


def in_pieces(text: str) -> str:
    """A text with a space in each run that takes spaCy long."""
    return CHARACTERS.sub(r"\g<0> ", SIGNS.sub(r"\g<0> ", text))
