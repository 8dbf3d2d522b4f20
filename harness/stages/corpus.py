"""Stage corpus: documents from their source through the filters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from typing import Any, NoReturn

from harness.axes.corpus import Corpus, Document, Split
from harness.axes.filter import Filter
from harness.data.lineage import Lineage
from harness.data.reading import Meter, metered
from harness.errors import DataError, IncompatibleError
from harness.hookspecs import hookimpl
from harness.stage import Stage, Work
from harness.stages._attempt import Attempt
from harness.stages._progress import Documents
from harness.stages._references import referenced


class CorpusStage(Stage):
    """Reads the corpus, applies the filters in order and on all cores, writes Parquet.

    What was dropped or rewritten, by which filter and why, stands in lineage.jsonl.
    State: what is filtered, saved now and then; after a kill the rest follows, but where a filter needs the
        whole stream first (dedup_set, classifier without negative examples)
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
        attempt = Attempt(work.checkpoints / "filtered", filters)
        meter, size = Meter(), corpus.file_bytes()
        progress = Documents(work, lambda: min(1.0, meter.bytes / size) if size else None)
        with metered(meter), attempt:
            corpus.damage.tell = lambda what: attempt.damage.add("", did="left out", by="corpus", why=what)
            stream = counted(corpus.documents(), read, progress)
            for _ in islice(stream, attempt.documents):  # what an earlier attempt filtered
                pass
            progress.begin()
            for method, told in zip(filters, attempt.told, strict=True):
                method.tell = partial(_tell, told, method.name)
            attempt.run(stream)
            facts = attempt.finish(work.out)
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
    raise DataError(
        f"corpus={corpus.name} leaves no documents to train on; check its path and "
        "corpus.{validation_share,test_share}"
    )


def _tell(lineage: Lineage, name: str, document: Document, did: str, why: str) -> None:
    where = {"domain": document.domain, "split": document.split.value}
    lineage.add(document.id, did=did, by=f"filter.{name}", why=why, **where)


def counted(
    stream: Iterator[Document], read: Counter[tuple[str, str]], progress: Documents
) -> Iterator[Document]:
    """The documents of a stream, counted by split and domain, and told of."""
    for document in stream:
        read[document.split.value, document.domain] += 1
        progress.add(document)
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
