"""What a strategy writes is kept, and can be learned from again."""

import json
from pathlib import Path

import tiny_models as tiny
from harness_plugins.instruction.messages import Messages

from harness.stages._written import WRITTEN
from harness.stages.instruct import Instruct


def test_written_conversations_are_kept_as_messages(tmp_path: Path) -> None:
    shelf = tiny.Shelf(tmp_path / "shelf")
    out = shelf.new("tuned")
    options = [
        "model=pretrained",
        f"model.path={tiny.pretrained(tmp_path / 'hf')}",
        "instruction.num_items=60",
        "instruction_strategy=complexity",
        "instruction_strategy.share=0.25",
        "instruct.budget={unit: steps, amount: 1}",
        "instruct.batch_size=4",
    ]
    facts = Instruct().run(tiny.work(shelf, "instruct", out, options, {}))
    rows = [json.loads(line) for line in (out.path / WRITTEN).read_text().splitlines()]
    assert facts["written_conversations"] == len(rows) == 15
    assert all("#" in row["id"] for row in rows)
    reader = Messages(Messages.Config(path=str(out.path / WRITTEN), validation_share=0, test_share=0))
    again = list(reader.conversations((), 0))
    assert [c.turns[-1].text for c in again] == [row["messages"][-1]["content"] for row in rows]
