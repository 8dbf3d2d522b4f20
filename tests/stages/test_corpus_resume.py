"""The stage corpus goes on after a kill: what it leaves is what one undisturbed run leaves, to the byte."""

import gzip
import itertools
import json
import os
import random
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from harness import Document, Filter
from harness.compose.typed import instance
from harness.data import documents, filtering, lineage
from harness.method import Choice
from harness.registry.known import registry
from harness.stage import Work
from harness.stages import _attempt, _progress

ROWS = 400


class Killed(Exception):  # noqa: N818
    """Stands for a kill."""


@dataclass
class Fate:
    """The document of the second file from which on the process ends; none if it is negative."""

    at: int = -1
    place: int = 0
    """Which of the fatal filters ends it."""
    kill: bool = False
    judged: int = 0


FATE = Fate()


class Fatal(Filter):
    """Keeps all, and dies where it must."""

    name = "fatal"

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        place: int = 0

    config: Config
    remembers = True

    def judge(self, document: Document) -> Document | str:
        FATE.judged += 1
        file, _, number = document.id.rpartition("/")
        if self.config.place == FATE.place and file == "pages/b.jsonl.gz" and 0 <= FATE.at <= int(number):
            if FATE.kill:
                os.kill(os.getpid(), signal.SIGKILL)
            raise Killed
        return document


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Rows of which some are copies, hold addresses, repeat sentences, or are damaged; in two files."""
    rng = random.Random(0)
    lines, text = list[str](), ""
    for place in range(ROWS):
        if place % 7 != 3:
            text = ". ".join(" ".join(f"w{rng.randrange(300)}" for _ in range(9)) for _ in range(4))
        text += ". Files are opened by name. They are read line by line" * (place % 4 == 0)
        text += " jane@example.org" * (place % 5 == 0) + " forbidden" * (place % 6 == 0)
        lines.append(json.dumps({"text": text}))
        if place % 49 == 20:
            lines.append('{"text": null}')
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.jsonl").write_text("\n".join(lines[:150]))
    with gzip.open(tmp_path / "pages" / "b.jsonl.gz", "wt") as file:
        file.write("\n".join(lines[150:]))
    return tmp_path / "pages"


def choice(axis: str, name: str, **options: Any) -> Choice:
    method = registry().get(axis, name)
    return Choice(axis=axis, method=method, config=instance(method.Config, options, where=axis))


def run(
    root: Path, pages: Path, *filters: Choice, attempt: int = 0, **more: Any
) -> tuple[Path, dict[str, Any]]:
    """Artifact and facts; attempts of one root share their checkpoints."""
    out = root / f"out{attempt}"
    out.mkdir(parents=True)
    chain = filters or (
        choice("filter", "pii"),
        choice("filter", "keyword", words=["forbidden"]),
        choice("filter", "dedup_document"),
        Choice(axis="filter", method=Fatal, config=Fatal.Config()),
        choice("filter", "dedup_sentence", span=2),
    )
    work = Work(
        stage="corpus",
        maker=registry().stage("corpus"),
        part="",
        config=None,
        choices={"corpus": choice("corpus", "jsonl", path=str(pages), on_error="skip"), "filter": chain},
        inputs={},
        seed=0,
        device="cpu",
        out=out,
        checkpoints=root,
        load=lambda key: pytest.fail("nothing to load"),
        **more,
    )
    return out, registry().stage("corpus")().run(work)


def same(first: Path, second: Path) -> bool:
    names = documents.FILE, lineage.FILE
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


@pytest.fixture
def saving(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A save after some 40 documents, as a clock says that ticks when it is looked at."""
    clock = itertools.count()
    monkeypatch.setattr(_attempt, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    monkeypatch.setattr(_attempt, "SAVE_SECONDS", 40.0)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    yield
    FATE.at, FATE.place, FATE.kill = -1, 0, False


def test_an_interrupted_run_leaves_what_an_undisturbed_one_leaves(
    saving: None, pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as never:
        never.setattr(_attempt, "SAVE_SECONDS", 1e9)
        whole, facts = run(tmp_path / "whole", pages)
    assert facts["filters"][2]["dropped"] > 10
    assert facts["filters"][4]["rewritten"] + facts["filters"][4]["dropped"] > 0
    assert facts["damaged"]["count"] == 8
    judged = []
    for attempt, place in enumerate((20, 61, 160)):
        FATE.at, FATE.judged = place, 0
        with pytest.raises(Killed):
            run(tmp_path / "killed", pages, attempt=attempt)
        judged.append(FATE.judged)
    FATE.at, FATE.judged = -1, 0
    found, again = run(tmp_path / "killed", pages, attempt=9)
    assert same(whole, found)
    assert again == facts
    assert sum(judged) + FATE.judged <= ROWS + 3 * 45, "only what came since the last save is judged again"


def test_saving_changes_nothing(
    saving: None, pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, facts = run(tmp_path / "saved", pages)
    monkeypatch.setattr(_attempt, "SAVE_SECONDS", 1e9)
    monkeypatch.setattr(filtering, "DOCUMENTS_PER_BATCH", 16)
    whole, others = run(tmp_path / "whole", pages)
    assert same(saved, whole)
    assert facts == others


def test_a_process_that_was_killed_is_gone_on_with(saving: None, pages: Path, tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        FATE.at, FATE.kill = 100, True
        try:
            run(tmp_path / "killed", pages)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    FATE.judged = 0
    found, facts = run(tmp_path / "killed", pages, attempt=1)
    assert 0 < FATE.judged < 200
    whole, others = run(tmp_path / "whole", pages)
    assert same(whole, found)
    assert facts == others


def test_a_save_that_is_not_whole_is_left_alone(saving: None, pages: Path, tmp_path: Path) -> None:
    whole, facts = run(tmp_path / "whole", pages)
    for attempt, lost in enumerate(("part-00001.parquet", "told-1.jsonl", "state-00*-2.npz")):
        root = tmp_path / f"killed{attempt}"
        FATE.at = 30
        with pytest.raises(Killed):
            run(root, pages)
        (file,) = (root / "pass-0").glob(lost)
        file.unlink()
        FATE.at = -1
        found, again = run(root, pages, attempt=1)
        assert same(whole, found)
        assert again == facts


class Learns(Filter):
    """Drops every text that is a copy of another, and counts how often it learns what those are."""

    name = "learns"
    times = 0

    @dataclass(frozen=True, kw_only=True)
    class Config(Filter.Config):
        pass

    def learn(self, documents: Iterator[Document]) -> None:
        Learns.times += 1
        counts = Counter(hash(document.text) for document in documents)
        self.copies = np.array([key for key, count in counts.items() if count > 1])

    def state(self) -> dict[str, np.ndarray]:
        return {"copies": self.copies}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        self.copies = state["copies"]

    def judge(self, document: Document) -> Document | str:
        return "copy" if hash(document.text) in self.copies else document


def test_filters_that_learn_from_the_whole_stream_go_on_too(
    saving: None, pages: Path, tmp_path: Path
) -> None:
    (tmp_path / "good.txt").write_text((pages / "a.jsonl").read_text()[:9000] * 9)
    chain = (
        choice("filter", "pii"),
        Choice(axis="filter", method=Fatal, config=Fatal.Config()),
        Choice(axis="filter", method=Learns, config=Learns.Config()),
        choice("filter", "dedup_set", ngram=3, max_share=0.5),
        Choice(axis="filter", method=Fatal, config=Fatal.Config(place=1)),
        choice("filter", "classifier", positive=str(tmp_path / "good.txt")),
    )
    whole, facts = run(tmp_path / "whole", pages, *chain)
    assert all(report["dropped"] for report in facts["filters"][2::3])
    judged, Learns.times = FATE.judged, 0
    FATE.judged = 0
    for attempt, place in enumerate((60, 200)):
        FATE.at = place
        with pytest.raises(Killed):
            run(tmp_path / "killed", pages, *chain, attempt=attempt)
    assert Learns.times == 0
    FATE.at, FATE.place = 100, 1
    with pytest.raises(Killed):  # the first of both has passed all, the second dies
        run(tmp_path / "killed", pages, *chain, attempt=2)
    assert Learns.times == 1
    FATE.at = -1
    found, again = run(tmp_path / "killed", pages, *chain, attempt=3)
    assert Learns.times == 1
    assert same(whole, found)
    assert again == facts
    assert FATE.judged <= judged + 3 * 45


def test_progress_tells_documents_bytes_and_the_time_left(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_progress, "EVERY", 0.0)
    told: list[tuple[int, dict[str, float]]] = []
    run(tmp_path / "whole", pages, choice("filter", "pii"), on_progress=lambda *what: told.append(what))
    assert [done for done, _ in told] == list(range(1, ROWS + 1))
    last = told[-1][1]
    assert last["documents"] == ROWS
    rows = [json.loads(line) for line in (pages / "a.jsonl").read_text().splitlines()]
    rows += [json.loads(line) for line in gzip.decompress((pages / "b.jsonl.gz").read_bytes()).splitlines()]
    assert last["bytes"] == sum(len(row["text"]) for row in rows if row["text"])
    shares = [facts["progress"] for _, facts in told]
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1
    assert last["seconds_left"] == 0
