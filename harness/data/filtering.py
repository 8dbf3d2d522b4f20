"""Documents through filters in their order, on all cores where a verdict rests on the document alone."""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor

from harness.axes.corpus import Document
from harness.axes.filter import Filter

CHARACTERS_PER_BATCH = 500_000
DOCUMENTS_PER_BATCH = 256
BATCHES_AHEAD = 2
"""Batches that wait for each worker, so that the memory stays bounded."""
PR_SET_PDEATHSIG = 1
Verdict = Document | str | bool
"""The document rewritten, the reason for dropping it, or whether it was seen and stays as it is."""


def passes(filters: Sequence[Filter]) -> list[list[Filter]]:
    """Filters that one reading of documents serves: one that learns from all of them begins the next."""
    found: list[list[Filter]] = [[]]
    for method in filters:
        if method.learns():
            found.append([])
        found[-1].append(method)
    return found


def passed_on(
    documents: Iterator[Document], filters: Sequence[Filter], *, workers: int | None = None
) -> Iterator[Document]:
    """The next documents that stay, in their order, whatever the number of workers (None: one a core).

    The filters are prepared, and have learned or were restored.
    """
    number = workers or len(os.sched_getaffinity(0))
    for alone, group in itertools.groupby(filters, key=lambda method: method.judges_alone()):
        if alone and number > 1:
            documents = _shared(documents, list(group), number)
        else:
            for method in group:
                documents = method.pass_on(documents)
    return documents


def _shared(documents: Iterator[Document], methods: list[Filter], workers: int) -> Iterator[Document]:
    """Verdicts come from processes, batch after batch; counts and the stream are made here alone."""
    batches = _batches(documents)
    first = next(batches, None)
    if first is None:
        return
    yield from _settled(first, _verdicts(first, methods), methods)  # little text is not worth a process
    second = next(batches, None)
    if second is None:
        return
    waiting: deque[tuple[list[Document], Future[list[list[Verdict]]]]] = deque()
    with ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("fork"), initializer=_begin, initargs=(methods,)
    ) as pool:
        for batch in itertools.chain([second], batches):
            waiting.append((batch, pool.submit(_work, batch)))
            if len(waiting) > BATCHES_AHEAD * workers:
                yield from _next(waiting, methods)
        while waiting:
            yield from _next(waiting, methods)


def _next(
    waiting: deque[tuple[list[Document], Future[list[list[Verdict]]]]], methods: Sequence[Filter]
) -> Iterator[Document]:
    batch, found = waiting.popleft()
    yield from _settled(batch, found.result(), methods)


def _settled(
    batch: list[Document], found: list[list[Verdict]], methods: Sequence[Filter]
) -> Iterator[Document]:
    """Verdicts told and counted in the order of the documents."""
    for document, verdicts in zip(batch, found, strict=True):
        kept: Document | None = document
        for method, verdict in zip(methods, verdicts, strict=False):
            if kept is not None and verdict is not False:
                kept = method.settle(kept, kept if verdict is True else verdict)
        if kept is not None:
            yield kept


def _verdicts(batch: list[Document], methods: Sequence[Filter]) -> list[list[Verdict]]:
    """Of each document what each filter says, up to the one that drops it."""
    found: list[list[Verdict]] = []
    for document in batch:
        own: list[Verdict] = []
        for method in methods:
            if not method.sees(document):
                own.append(False)
                continue
            verdict = method.judge(document)
            if isinstance(verdict, str):
                own.append(verdict)
                break
            own.append(True if verdict is document else verdict)
            document = verdict
        found.append(own)
    return found


_METHODS: list[Filter] = []
"""What a worker judges by; inherited, as filters may hold more than is worth sending."""


def _begin(methods: list[Filter]) -> None:
    with contextlib.suppress(OSError, AttributeError):  # end with the process that asks, whatever ends it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    _METHODS[:] = methods


def _work(batch: list[Document]) -> list[list[Verdict]]:
    return _verdicts(batch, _METHODS)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == DOCUMENTS_PER_BATCH or characters >= CHARACTERS_PER_BATCH:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch
