"""How far a stage is that passes documents or requests: how many, and how long the rest takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from harness.axes.corpus import Document
from harness.stage import Work

EVERY = 1.0
"""Seconds between two messages."""


class Documents:
    """Counts the documents of one pass and tells of them.

    Units: bytes are UTF-8; `within` gives the part of the pass that so many documents are (0 to 1), None
        where nobody knows
    """

    def __init__(
        self, work: Work, within: Callable[[int], float | None], *, after: int = 0, of: int = 1
    ) -> None:
        """The pass comes `after` so many others `of` all."""
        self.work, self.within, self.after, self.of = work, within, after, of
        self.documents = self.bytes = 0
        self._began = self._told = time.monotonic()
        self._from = 0.0

    def add(self, document: Document) -> None:
        """One more."""
        self.documents += 1
        self.bytes += len(document.text.encode())
        now = time.monotonic()
        if now - self._told >= EVERY:
            self._told = now
            self.work.on_progress(self.documents, self._facts(now - self._began))

    def over(self, documents: Iterator[Document]) -> Iterator[Document]:
        """Documents as they pass, each told of."""
        for document in documents:
            self.add(document)
            yield document

    def share(self) -> float | None:
        """The part of all passes that is done."""
        within = self.within(self.documents)
        return None if within is None else (self.after + within) / self.of

    def begin(self) -> None:
        """The pace is measured from here on: what was counted before is of an earlier attempt."""
        self._began = self._told = time.monotonic()
        self._from = self.share() or 0.0

    def _facts(self, seconds: float) -> dict[str, float]:
        facts = {"documents": float(self.documents), "bytes": float(self.bytes)}
        share = self.share()
        if share is not None:
            facts["progress"] = share
            if share > self._from:
                facts["seconds_left"] = seconds * (1 - share) / (share - self._from)
        return facts


class Requests:
    """Tells how many requests of a measurement are answered.

    State: of one that asks several times, what it asked before; the time left is that of what it asks now
    """

    def __init__(self, work: Work) -> None:
        self.work = work
        self._before = self._done = self._total = 0
        self._began = self._told = self._seen = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """So many of so many are."""
        now = time.monotonic()
        if done <= self._done:
            self._before += self._total
            self._began = self._seen
        self._done, self._total, self._seen = done, total, now
        if now - self._told < EVERY or not 0 < done < total:
            return
        self._told = now
        asked = self._before + total
        facts = {"requests": float(asked), "progress": (self._before + done) / asked}
        facts["seconds_left"] = (now - self._began) * (total - done) / done
        self.work.on_progress(self._before + done, facts)
