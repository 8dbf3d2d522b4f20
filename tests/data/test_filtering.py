"""Filters on several cores: what comes out is what one process gives, in its order."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from harness_plugins.filter.dedup_document import DedupDocument
from harness_plugins.filter.keyword import Keyword
from harness_plugins.filter.pii import Pii

from harness import Document, Filter, Split
from harness.data import filtering
from harness.data.filtering import passed_on


def filtered(found: Iterator[Document], methods: list[Filter], *, workers: int) -> Iterator[Document]:
    for method in methods:
        method.prepare()
    return passed_on(found, methods, workers=workers)


def pages(number: int) -> list[Document]:
    """Some are copies, some hold an address, some a word that is not wanted."""
    rng = random.Random(0)
    found: list[Document] = []
    for place in range(number):
        text = " ".join(f"w{rng.randrange(900)}" for _ in range(40))
        if place % 7 == 3:
            text = found[-1].text
        text += " jane@example.org" * (place % 5 == 0) + " forbidden" * (place % 6 == 0)
        split = Split.test if place % 10 == 0 else Split.train
        found.append(Document(id=f"page/{place}", text=text, domain="ab"[place % 2], split=split))
    return found


def chain(**options: Any) -> list[Filter]:
    return [
        Pii(replace(Pii.Config(), **options)),
        Keyword(replace(Keyword.Config(words=["forbidden"]), **options)),
        DedupDocument(),
        Pii(Pii.Config(kinds=["email"])),
    ]


def outcome(workers: int, **options: Any) -> tuple[Any, ...]:
    """Everything that a run leaves: documents, reports, and what was told in which order by each filter."""
    methods, told = chain(**options), []
    for place, method in enumerate(methods):
        method.tell = lambda document, did, why, place=place: told.append((place, document.id, did, why))
    kept = list(filtered(iter(pages(300)), methods, workers=workers))
    return kept, [vars(method.report) for method in methods], sorted(told, key=lambda row: row[0])


@pytest.mark.parametrize("options", [{}, {"domains": ["a"]}, {"splits": [Split.train]}], ids=str)
def test_the_result_does_not_depend_on_the_number_of_workers(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtering, "DOCUMENTS_PER_BATCH", 16)
    alone = outcome(1, **options)
    assert alone[1][0]["rewritten"] > 10
    assert alone[1][1]["dropped"] > 10
    assert alone[1][2]["dropped"] > 10
    for workers in (2, 3):
        assert outcome(workers, **options) == alone


def test_what_a_filter_does_not_look_at_passes() -> None:
    methods = chain(splits=[Split.train])[:2]
    held_out = [page for page in pages(300) if page.split is Split.test]
    kept = list(filtered(iter(pages(300)), methods, workers=1))
    assert [page for page in kept if page.split is Split.test] == held_out


class Breaks(Filter):
    """Fails at one document."""

    name = "breaks"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        pass

    def judge(self, document: Document) -> Document | str:
        if document.id == "page/250":
            raise ValueError("page/250 is broken")
        return document


def test_an_error_in_a_worker_is_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtering, "DOCUMENTS_PER_BATCH", 16)
    with pytest.raises(ValueError, match="page/250 is broken"):
        list(filtered(iter(pages(300)), [Breaks()], workers=2))


def test_the_source_is_read_no_further_than_the_workers_can_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtering, "DOCUMENTS_PER_BATCH", 4)
    read = 0

    def source() -> Iterator[Document]:
        nonlocal read
        for page in pages(400):
            read += 1
            yield page

    stream = filtered(source(), [Pii()], workers=2)
    for _ in range(8):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert read <= 8 + 4 * (filtering.BATCHES_AHEAD * 2 + 2)


def test_little_text_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filtering, "ProcessPoolExecutor", lambda *_, **__: pytest.fail("not worth it"))
    assert len(list(filtered(iter(pages(20)), [Pii()], workers=4))) == 20


ENDLESS = """
import itertools, sys
from harness import Document, Split
from harness.data import filtering
from harness_plugins.filter.pii import Pii

filtering.DOCUMENTS_PER_BATCH = 4
pages = (Document(id=str(n), text="plain words", domain="d", split=Split.train) for n in itertools.count())
for page in filtering.passed_on(pages, [Pii()], workers=2):
    if page.id == "100":
        print("running", flush=True)
"""


def test_workers_end_with_the_process_that_was_killed() -> None:
    def group() -> set[str]:
        """Processes of the killed one's group that are not ended."""
        found = set()
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
                if int(number) == process.pid and state != "Z":
                    found.add(stat.parent.name)
        return found

    command = [sys.executable, "-c", ENDLESS]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "running\n"
        assert len(group()) == 3, "the process and its two workers"
        process.kill()
        process.wait()
        until = time.monotonic() + 10
        while group() and time.monotonic() < until:
            time.sleep(0.05)
        assert group() == set()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()
