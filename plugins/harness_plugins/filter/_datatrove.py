"""What the filters that datatrove runs share."""

from abc import abstractmethod
from dataclasses import replace
from functools import cached_property
from typing import Any

from harness import Document, Filter, MissingExtraError


class Datatrove(Filter):
    """A filter of datatrove with its defaults as ours; English, split into words by spaCy's rules."""

    extra = "data"
    libraries = ("datatrove", "spacy")

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

        given = Theirs(text=document.text, id=document.id)
        verdict = self.theirs.filter(given)
        kept, reason = verdict if isinstance(verdict, tuple) else (verdict, "")
        if not kept:
            return str(reason).removeprefix("gopher_").replace("_", " ")
        return document if given.text == document.text else replace(document, text=given.text)
