"""Tuned values in a report: they may differ between methods, and a best value on an edge is footnoted."""

import json
from pathlib import Path

import simulate

from harness.report import comparability, records

RATE = "pretrain.learning_rate"


def tuned(root: Path, *, edge: str = "") -> comparability.Comparable:
    """Simulated records in which every method trains at a rate of its own, found by tuning."""
    rates: dict[str, float] = {}
    simulate.experiment(root, items=12, seed_sd=0.1)
    for number, path in enumerate(sorted(root.glob("records/demo/*/record.json"))):
        record = json.loads(path.read_text())
        record["experiment"]["tune"] = {"space": {RATE: [0.1, 0.2]}, "options": [RATE]}
        record["config"]["pretrain"]["learning_rate"] = rates.setdefault(
            str(record["levels"]), 0.1 + len(rates)
        )
        record["tune"] = {
            "search": "grid",
            "metric": "perplexity.perplexity.bits_per_byte",
            "split": "validation",
            "seed": 0,
            "chosen": {RATE: 0.1},
            "value": 2.5,
            "edge": [edge] if edge and number == 0 else [],
            "trials": [{"trial": 1}, {"trial": 2}],
        }
        path.write_text(json.dumps(record))
    return comparability.comparable(records.read(root, "demo"))


def test_tuned_options_may_differ_between_rows_and_the_table_says_how_they_were_found(tmp_path: Path) -> None:
    found = tuned(tmp_path)
    assert {record.status for record in found.records} == {"ok"}
    how, chosen = found.notes
    assert how.startswith(
        "Tuned: 2 trials for every method (grid), chosen by bits_per_byte on the validation"
    )
    assert chosen.count(f"{RATE} = 0.1") == 1, "methods with one value stand together"
    assert found.marks == {}


def test_a_best_value_on_an_edge_is_footnoted_at_its_number(tmp_path: Path) -> None:
    found = tuned(tmp_path, edge=f"{RATE}=0.1 is the lowest of 2 tried")
    ((text,),) = found.marks.values()
    assert text == f"tuned to an edge, so a better value may lie beyond: {RATE}=0.1 is the lowest of 2 tried"


def test_what_was_chosen_is_said_once_for_each_tuned_method(tmp_path: Path) -> None:
    tuned(tmp_path)
    rates = {"full": 0.1, "lora": 0.3}
    for path in tmp_path.glob("records/demo/*/record.json"):
        record = json.loads(path.read_text())
        record["experiment"]["tune"]["by"] = ["peft"]
        record["tune"]["chosen"] = {RATE: rates[record["levels"]["peft"]]}
        path.write_text(json.dumps(record))
    chosen = comparability.comparable(records.read(tmp_path, "demo")).notes[1]
    assert chosen == f"Chosen: full: {RATE} = 0.1; lora: {RATE} = 0.3."

    for path in tmp_path.glob("records/demo/*/record.json"):  # a method without anything to tune
        record = json.loads(path.read_text())
        if record["levels"]["peft"] == "full":
            record["tune"]["chosen"] = {}
        path.write_text(json.dumps(record))
    chosen = comparability.comparable(records.read(tmp_path, "demo")).notes[1]
    assert chosen == f"Chosen: lora: {RATE} = 0.3."
