"""Stage corpus: documents from their source through the filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any, NoReturn

from harness.axes.corpus import Corpus, Document, Split
from harness.axes.filter import Filter
from harness.data.filtering import passes
from harness.data.lineage import Lineage, join
from harness.data.metering import Meter, metered
from harness.errors import DataError, IncompatibleError
from harness.hookspecs import hookimpl
from harness.stage import Stage, Work
from harness.stages._attempt import Attempt
from harness.stages._progress import Documents
from harness.stages._references import referenced


class CorpusStage(Stage):
    """Reads the corpus, applies the filters in order and on all cores, writes Parquet.

    What was dropped or rewritten, by which filter and why, stands in lineage.jsonl.
    State: what is filtered, saved now and then; after a kill the rest follows. What comes to a filter that
        learns from the whole stream (dedup_set, classifier without negative examples) is written down, to
        be read twice
    Raises: IncompatibleError where the filters leave nothing to train on, DataError where the corpus does
    """

    name = "corpus"
    axes = ("corpus", "filter")
    produces = "documents"
    seeded = False

    def run(self, work: Work) -> dict[str, Any]:
        corpus: Corpus = work.one("corpus").build()
        read: Counter[tuple[str, str]] = Counter()
        filters: list[Filter] = [choice.build() for choice in work.several("filter")]
        for method in filters:
            method.models = referenced(work, f"filter.{method.name}")
        meter, size = Meter(), corpus.file_bytes()
        work.checkpoints.mkdir(parents=True, exist_ok=True)
        with metered(meter), Lineage(work.checkpoints, name="damage.jsonl") as damage:
            corpus.damage.tell = lambda what: damage.add("", did="left out", by="corpus", why=what)
            source = Source(
                begin=lambda: counted(corpus.documents(), read),
                share=lambda passed: min(1.0, meter.bytes / size) if size else None,
            )
            facts, told = filtered(work, source, filters)
        join([*told, damage], work.out)
        if corpus.damage.count:
            facts["damaged"] = {"count": corpus.damage.count, "first": corpus.damage.first}
        facts["kept"] = kept(read, facts["num_documents"])
        facts["filters"] = [{"filter": method.name, **vars(method.report)} for method in filters]
        facts["effects"] = {
            f"filter.{method.name}": {
                "seen": method.report.seen,
                "dropped": method.report.dropped,
                "rewritten": method.report.rewritten,
            }
            for method in filters
        }
        if not facts["num_documents"].get(Split.train.value):
            _refuse_empty(corpus, filters)
        return facts


DECIDING = ("path", "max_bytes", "validation_share", "test_share")
"""Options of a corpus that decide whether there is anything to train on."""


def _refuse_empty(corpus: Corpus, filters: Sequence[Filter]) -> NoReturn:
    """Say why there is nothing to train on: what the filters dropped, or the corpus itself.

    Raises: IncompatibleError, DataError
    """
    dropped = [f"{f.name} dropped {f.report.dropped} of {f.report.seen}" for f in filters if f.report.dropped]
    if dropped:
        raise IncompatibleError(
            f"corpus={corpus.name} leaves no documents to train on: {', '.join(dropped)}; loosen these "
            "filters or leave them out"
        )
    own = [f"corpus.{name}" for name in DECIDING if hasattr(corpus.config, name)]
    raise DataError(f"corpus={corpus.name} leaves no documents to train on; check {', '.join(own)}")


@dataclass(frozen=True, kw_only=True)
class Source:
    """Documents that can be read more than once."""

    begin: Callable[[], Iterator[Document]]
    share: Callable[[int], float | None]
    """The part of them that so many documents are (0 to 1); None where nobody knows."""


def filtered(work: Work, source: Source, filters: Sequence[Filter]) -> tuple[dict[str, Any], list[Lineage]]:
    """Write the documents that stay, in one pass or in as many as the filters need; facts about them, and
    what each filter told.
    """
    groups, told = passes(filters), list[Lineage]()
    for place, group in enumerate(groups):
        with Attempt(work.checkpoints / f"pass-{place}", group, source.begin) as attempt:
            for method, own in zip(group, attempt.told, strict=True):
                method.tell = partial(_tell, own, method.name)
            told += attempt.told
            progress = Documents(work, source.share, after=place, of=len(groups))
            stream = progress.over(source.begin())
            for _ in islice(stream, attempt.documents):  # what an earlier attempt filtered
                pass
            progress.begin()
            attempt.run(stream)
            if group is groups[-1]:
                return attempt.finish(work.out), told
            attempt.keep()
        source = Source(begin=attempt.written, share=partial(_share, attempt.num_written()))
    raise AssertionError("there is one pass at least")


def _share(whole: int, passed: int) -> float:
    return passed / max(1, whole)


def _tell(lineage: Lineage, name: str, document: Document, did: str, why: str) -> None:
    where = {"domain": document.domain, "split": document.split.value}
    lineage.add(document.id, did=did, by=f"filter.{name}", why=why, **where)


def counted(stream: Iterator[Document], read: Counter[tuple[str, str]]) -> Iterator[Document]:
    """The documents of a stream, counted by split and domain."""
    for document in stream:
        read[document.split.value, document.domain] += 1
        yield document


def kept(
    read: Mapping[tuple[str, str], int], num_documents: Mapping[str, Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    """Share of the documents read that the filters left, by split and domain."""
    shares: dict[str, dict[str, float]] = {}
    for (split, domain), count in read.items():
        shares.setdefault(split, {})[domain] = num_documents.get(split, {}).get(domain, 0) / count
    return shares


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [CorpusStage]
