"""What a report says of test items in training text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypedDict

from harness.forms import misfit
from harness.report.record import Record

STAGE = "decontaminate"


class Decontaminated(TypedDict):
    """What a stage says of the test items that it looked for."""

    dropped: int
    seen: int
    ngram: int
    by_source: dict[str, int]


def contamination_notes(records: Sequence[Record]) -> list[str]:
    """How many training documents, conversations or preferences were dropped because they hold test items, or
    that nobody looked.
    """
    return list(dict.fromkeys(note for record in records for note in _notes(record)))


def _notes(record: Record) -> Iterator[str]:
    facts, config = record.data.get("facts", {}), record.data["config"]
    for stage, own in facts.items():
        found = own.get("decontaminated")
        if misfit(found, Decontaminated):
            continue  # of no stage of ours, or nothing
        entries = "documents" if stage == STAGE else f"entries of {stage}"
        by_source = ", ".join(
            f"{name.replace('_', ' ')}: {count:,}" for name, count in sorted(found["by_source"].items())
        )
        yield (
            f"Decontaminated: {found['dropped']:,} of {found['seen']:,} training {entries} shared "
            f"{found['ngram']}-grams with test items and were dropped{by_source and f' ({by_source})'}."
        )
    if STAGE in config and STAGE not in facts and "corpus" in config.get("stages", ()):
        if STAGE not in config["stages"]:
            yield f"Training text was not compared with test items: `stages` leaves out {STAGE}."
        elif not config[STAGE].get("enabled", True):
            yield f"Training text was not compared with test items: {STAGE}.enabled=false."
    for stage in config.get("stages", ()):
        options = config.get(stage) or config.get(f"{stage}_stage") or {}
        if isinstance(options, Mapping) and options.get("decontaminate") is False:
            yield f"What {stage} learns was not compared with test items: {stage}.decontaminate=false."
