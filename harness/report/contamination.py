"""What a report says of test items in training text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.report.records import Record

STAGE = "decontaminate"


def contamination_notes(records: Sequence[Record]) -> list[str]:
    """How many training documents were dropped because they hold test items, or that nobody looked."""
    return list(dict.fromkeys(note for record in records for note in _notes(record)))


def _notes(record: Record) -> Iterator[str]:
    found = record.data.get("facts", {}).get(STAGE, {}).get("decontaminated")
    config = record.data["config"]
    if found is not None:
        sources = sorted(found["by_source"].items())
        by_source = ", ".join(f"{name.replace('_', ' ')}: {count:,}" for name, count in sources)
        yield (
            f"Decontaminated: {found['dropped']:,} of {found['seen']:,} training documents shared "
            f"{found['ngram']}-grams with test items and were dropped{by_source and f' ({by_source})'}."
        )
    elif STAGE in config and "corpus" in config.get("stages", ()):
        if STAGE not in config["stages"]:
            yield f"Training text was not compared with test items: `stages` leaves out {STAGE}."
        elif not config[STAGE]["enabled"]:
            yield f"Training text was not compared with test items: {STAGE}.enabled=false."
