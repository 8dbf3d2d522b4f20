"""Filtering that survives a kill: what is done is saved now and then, and the next attempt goes on."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from harness.axes.corpus import Document
from harness.axes.filter import Filter, FilterReport
from harness.data import documents
from harness.data.filtering import passed_on
from harness.data.lineage import Lineage

SAVE_SECONDS = 30.0
"""Between two saves, at least."""
SAVE_SHARE = 0.05
"""Most of the time that saving may take: what a filter remembers grows with the corpus."""
JOURNAL = "journal.json"


class Attempt:
    """One pass of documents through filters into files; what is written, its lineage and what the filters
    know are saved together.

    What each filter told stands together, so that the lineage rests neither on saves nor on workers.
    State: parts of the documents, what each filter told, one array file a filter, and a journal that says
        which of them belong together; it is replaced in one step, so that a kill leaves the last save or the
        one before
    """

    def __init__(
        self, directory: Path, filters: Sequence[Filter], given: Callable[[], Iterator[Document]]
    ) -> None:
        """`given` begins the documents of this pass anew, for filters that learn from all of them."""
        self.directory, self.filters = directory, filters
        self.parts = self.documents = 0
        """Finished files, and documents that an earlier attempt has passed."""
        self._cost, self._last = 0.0, time.monotonic()
        saved = self._read()
        if saved is None:
            shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True, exist_ok=True)
        for method in filters:
            method.prepare()
            if saved is None and method.learns():
                method.learn(given())
        if saved is not None:
            self._restore(saved)
        kept = saved["told"] if saved else [0] * len(filters)
        self.told = [
            Lineage(directory, name=self._told(place).name, keep=size) for place, size in enumerate(kept)
        ]
        self._saved = self.documents if saved else -1
        self._writer = documents.DocumentWriter(self._part(self.parts))

    def run(self, stream: Iterator[Document]) -> None:
        """Filter and write what follows."""
        for first in stream:
            self.documents += 1
            for document in passed_on(chain([first], self._until_due(stream)), self.filters):
                self._writer.add(document)
            if self._due():
                self._save()

    def keep(self) -> None:
        """Save what the whole pass left, so that a killed stage goes on with the next one."""
        if self._saved != self.documents:
            self._save()

    def written(self) -> Iterator[Document]:
        """The documents saved so far, in their order."""
        return self._parts(self.parts)

    def num_written(self) -> int:
        """How many those are."""
        return sum(documents.count(self._part(part)) for part in range(self.parts))

    def finish(self, out: Path) -> dict[str, Any]:
        """Put the documents in their place; their number, bytes and hash."""
        facts = self._writer.close()
        if self.parts:  # joined as if they had been written in one go
            facts = documents.write(out, self._parts(self.parts + 1))
        else:
            self._part(0).replace(out / documents.FILE)
        return facts

    def __enter__(self) -> Attempt:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for part in self.told:
            part.__exit__(kind, error, trace)

    def _until_due(self, stream: Iterator[Document]) -> Iterator[Document]:
        """Documents up to the next save. Who asks for one more has dealt with those before."""
        while not self._due():
            document = next(stream, None)
            if document is None:
                return
            self.documents += 1
            yield document

    def _due(self) -> bool:
        pause = max(SAVE_SECONDS, self._cost / SAVE_SHARE)
        return time.monotonic() - self._last >= pause

    def _save(self) -> None:
        """Make all so far survive a kill."""
        began = time.monotonic()
        self._writer.close()
        _sync(self._part(self.parts))
        self.parts += 1
        for place, method in enumerate(self.filters):
            file = self._state(self.parts, place)
            arrays: dict[str, Any] = method.state()
            with file.open("wb") as target:
                np.savez(target, **arrays)
            _sync(file)
        journal = {
            "documents": self.documents,
            "parts": self.parts,
            "told": [part.save() for part in self.told],
            "reports": [vars(method.report) for method in self.filters],
        }
        temporary = self.directory / f".{JOURNAL}"
        temporary.write_text(json.dumps(journal), encoding="utf-8")
        _sync(temporary)
        temporary.replace(self.directory / JOURNAL)
        for place in range(len(self.filters)):
            self._state(self.parts - 1, place).unlink(missing_ok=True)
        self._saved = self.documents
        self._writer = documents.DocumentWriter(self._part(self.parts))
        self._last = time.monotonic()
        self._cost = self._last - began

    def _read(self) -> dict[str, Any] | None:
        """The journal; None where there is none, or what it names is gone."""
        try:
            saved: dict[str, Any] = json.loads((self.directory / JOURNAL).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        files = [self._part(number) for number in range(saved["parts"])]
        files += [self._state(saved["parts"], place) for place in range(len(self.filters))]
        sizes = {self._told(place): size for place, size in enumerate(saved["told"])}
        whole = all(file.exists() for file in (*files, *sizes))
        return saved if whole and all(file.stat().st_size >= n for file, n in sizes.items()) else None

    def _restore(self, saved: dict[str, Any]) -> None:
        self.parts, self.documents = saved["parts"], saved["documents"]
        for place, (method, report) in enumerate(zip(self.filters, saved["reports"], strict=True)):
            method.report = FilterReport(**report)
            with np.load(self._state(self.parts, place)) as state:
                method.restore(state)

    def _parts(self, number: int) -> Iterator[Document]:
        """The documents of the first files."""
        return chain.from_iterable(documents.iterate_file(self._part(part)) for part in range(number))

    def _told(self, place: int) -> Path:
        return self.directory / f"told-{place}.jsonl"

    def _part(self, number: int) -> Path:
        return self.directory / f"part-{number:05d}.parquet"

    def _state(self, number: int, place: int) -> Path:
        return self.directory / f"state-{number:05d}-{place}.npz"


def _sync(file: Path) -> None:
    """Wait until a file is on the disk."""
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
