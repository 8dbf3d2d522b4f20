"""What every filter must do."""

from dataclasses import replace
from pathlib import Path

from harness.axes.corpus import Document
from harness.axes.filter import Filter

AXIS = "filter"


def run(method: type[Filter], directory: Path, documents: list[Document]) -> tuple[list[Document], Filter]:
    """What stays of some documents, and the filter with its report."""
    config, _, _ = method.trial(directory)
    instance = method(config)
    return list(instance.apply(iter(documents))), instance


def test_it_keeps_what_it_should_keep(method: type[Filter], tmp_path: Path) -> None:
    _, clean, _ = method.trial(tmp_path)
    kept, instance = run(method, tmp_path, [clean])
    assert kept == [clean], "the clean document of `trial` was dropped or changed"
    assert instance.report.dropped == instance.report.rewritten == 0, (
        "the report counts something dropped or rewritten where all was kept"
    )


def test_it_acts_on_what_it_should_not_keep(method: type[Filter], tmp_path: Path) -> None:
    _, clean, dirty = method.trial(tmp_path)
    kept, instance = run(method, tmp_path, [clean, dirty])
    assert kept[:1] == [clean], "the clean document of `trial` was dropped or changed"
    assert dirty not in kept, "the dirty document of `trial` came through as it was"
    assert instance.report.dropped + instance.report.rewritten == 1, (
        "report.dropped + report.rewritten must count the one document acted on"
    )


def test_its_report_adds_up(method: type[Filter], tmp_path: Path) -> None:
    _, clean, dirty = method.trial(tmp_path)
    kept, instance = run(method, tmp_path, [clean, dirty])
    assert instance.report.seen == 2, "report.seen must count every document that came in"
    assert instance.report.seen - instance.report.dropped == len(kept), (
        "seen - dropped is not what came out: count every document that is dropped"
    )
    assert sum(instance.report.reasons.values()) == instance.report.dropped, (
        "report.reasons must sum to report.dropped: give a reason for each"
    )


def test_it_keeps_ids_domains_splits_and_order(method: type[Filter], tmp_path: Path) -> None:
    _, clean, dirty = method.trial(tmp_path)
    kept, _ = run(method, tmp_path, [clean, dirty])
    ids = [document.id for document in kept]
    assert ids == [name for name in (clean.id, dirty.id) if name in ids], (
        "documents changed their ids or their order"
    )
    known = {document.id: (document.domain, document.split) for document in (clean, dirty)}
    assert all(known[document.id] == (document.domain, document.split) for document in kept), (
        "a document changed its domain or split"
    )


def stream(method: type[Filter], directory: Path) -> list[Document]:
    """Twenty times the two documents of `trial`, each with a number behind it."""
    _, clean, dirty = method.trial(directory)
    return [
        replace(document, id=f"{document.id}-{number}", text=f"{document.text} {number}")
        for number in range(20)
        for document in (clean, dirty)
    ]


def test_it_judges_the_same_stream_the_same_way(method: type[Filter], tmp_path: Path) -> None:
    (kept, first), (again, second) = (run(method, tmp_path, stream(method, tmp_path)) for _ in range(2))
    assert (kept, first.report) == (again, second.report), (
        "two passes over the same documents differ: draw nothing, and give the same reasons"
    )


def test_a_verdict_rests_on_the_document_where_it_says_so(method: type[Filter], tmp_path: Path) -> None:
    documents = stream(method, tmp_path)
    kept, instance = run(method, tmp_path, documents)
    if instance.judges_alone():
        backwards, _ = run(method, tmp_path, documents[::-1])
        assert kept == backwards[::-1], (
            "a verdict depends on the documents before it, and processes share them: set `remembers`, or "
            "judge each document alone"
        )


def test_it_goes_on_from_what_it_remembers(method: type[Filter], tmp_path: Path) -> None:
    documents = stream(method, tmp_path)
    whole, _ = run(method, tmp_path, documents)
    for cut in (1, len(documents) // 2):
        first, second = method(method.trial(tmp_path)[0]), method(method.trial(tmp_path)[0])
        first.prepare()
        if first.learns():
            first.learn(iter(documents))
        kept = list(first.pass_on(iter(documents[:cut])))
        second.prepare()
        second.restore({name: array.copy() for name, array in first.state().items()})
        kept += second.pass_on(iter(documents[cut:]))
        assert kept == whole, (
            "a second instance that was given `state` judges otherwise than the first would, and a stage "
            "that was killed would leave other documents: hand on all that verdicts rest on"
        )


def test_an_empty_stream_stays_empty(method: type[Filter], tmp_path: Path) -> None:
    kept, instance = run(method, tmp_path, [])
    assert kept == [], "documents came from an empty stream"
    assert instance.report.seen == 0, "report.seen counts documents that were not there"


def test_two_instances_share_nothing(method: type[Filter], tmp_path: Path) -> None:
    _, clean, dirty = method.trial(tmp_path)
    run(method, tmp_path, [clean, dirty])
    _, instance = run(method, tmp_path, [clean])
    assert (instance.report.seen, instance.report.dropped) == (1, 0), (
        "a second instance counts what the first one saw: keep state on self, made in __init__"
    )
