"""What a report says of test items in training text."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from harness.forms import misfit
from harness.report.record import Record


class Decontaminated(TypedDict):
    """What a stage says of the test items that it looked for."""

    dropped: int
    seen: int
    ngram: int
    by_source: dict[str, int]
    short_alike: NotRequired[int]


def contamination_notes(records: Sequence[Record]) -> list[str]:
    """How many training documents, conversations or preferences were dropped because they hold test items, or
    that nobody looked.
    """
    stages = _stages()  # looked up once: asking what is installed takes a tenth of a second
    return list(dict.fromkeys(note for record in records for note in _notes(record, stages)))


def _notes(record: Record, stages: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    config = record.data["config"]
    for name, own in record.data.get("facts", {}).items():
        found = own.get("decontaminated")
        if misfit(found, Decontaminated):
            continue  # of no stage of ours, or nothing
        documents = stages.get(_base(name), {}).get("produces") == "documents"
        by_source = ", ".join(
            f"{source.replace('_', ' ')}: {count:,}" for source, count in sorted(found["by_source"].items())
        )
        short = found.get("short_alike", 0)
        yield (
            f"Decontaminated: {found['dropped']:,} of {found['seen']:,} training "
            f"{'documents' if documents else f'entries of {name}'} shared {found['ngram']}-grams with test "
            f"items and were dropped{by_source and f' ({by_source})'}"
            + (f"; {short:,} more are a test item of fewer than 8 words, and stay." if short else ".")
        )
    listed = config.get("stages", ())
    ran = {_base(name) for name in listed}
    able = [name for name, stage in stages.items() if _filters(stage) and stage["key"] in config]
    if any(_begins(stages.get(name, {})) for name in ran) and able and not ran & {*able}:
        yield f"Training text was not compared with test items: `stages` leaves out {' and '.join(able)}."
    for name in listed:
        base, _, suffix = name.partition("@")
        if not (stage := stages.get(base)) or not (option := stage["decontaminates"]):
            continue
        key = "_".join(filter(None, (stage["key"], suffix)))
        if (config.get(key) or {}).get(option) is False:
            what = "Training text" if _filters(stage) else f"What {name} learns"
            yield f"{what} was not compared with test items: {key}.{option}=false."


def _stages() -> Mapping[str, Mapping[str, Any]]:
    from harness.registry import index as registry_index

    return registry_index.read()["stages"]  # type: ignore[no-any-return]


def _base(stage: str) -> str:
    return stage.partition("@")[0]


def _filters(stage: Mapping[str, Any]) -> bool:
    """Whether it makes documents without those that share text with test items."""
    return bool(stage["decontaminates"]) and stage["produces"] == "documents"


def _begins(stage: Mapping[str, Any]) -> bool:
    """Whether it brings the documents that the others read."""
    return stage.get("produces") == "documents" and "documents" not in stage["needs"]
