"""Tasks made from documentation: a name and the sentence that describes it."""

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise

from harness import Document, Split

NAME = re.compile(r"[A-Za-z_][\w.]{2,60}")
HELD_OUT_FIRST = (Split.test, Split.validation, Split.train)


def described(documents: Sequence[Document], split: Split, number: int) -> Iterator[tuple[str, str, str]]:
    """Up to `number` of (id, name, sentence): a line that is only a name, and the sentence below it.

    A name that documents of several splits describe belongs to the held-out one.
    """
    seen: set[str] = set()
    for owner in HELD_OUT_FIRST[: HELD_OUT_FIRST.index(split)]:
        seen.update(name for _, name, _ in _found(documents, owner))
    fresh = _fresh(_found(documents, split), seen)
    return islice(fresh, number)


def _fresh(entries: Iterator[tuple[str, str, str]], seen: set[str]) -> Iterator[tuple[str, str, str]]:
    for entry in entries:
        if entry[1] not in seen:
            seen.add(entry[1])
            yield entry


def _found(documents: Sequence[Document], split: Split) -> Iterator[tuple[str, str, str]]:
    for document in documents:
        if document.split is not split:
            continue
        for place, (name, sentence) in enumerate(pairwise(document.text.split("\n"))):
            if NAME.fullmatch(name) and sentence[:1].isupper() and sentence.strip().endswith("."):
                yield f"describe/{document.id}/{place}", name, sentence.strip()
