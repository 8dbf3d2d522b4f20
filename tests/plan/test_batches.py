"""The plan refuses batches that cannot be shared or tear the samples of a prompt, whenever they come."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.plan.make import make_plan
from harness.store import Store

RLOO = ["alignment=rloo", "reward=rules", "alignment.samples=4"]
RAMP = ["batch_schedule=ramp", "batch_schedule.start_share=0.25", "align.batch_size=8"]


def refused(words: list[str], store: Path) -> str:
    (cell,) = make_plan(["scale=smoke", *words], store=Store(store), single=True).cells
    return cell.refused


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([*RLOO, "align.batch_size=6"], "a batch of 6 (batch_schedule=constant) tears the 4 samples"),
        ([*RLOO, *RAMP], "a batch of 2 (batch_schedule=ramp) tears the 4 samples"),
        ([*RLOO, *RAMP, "batch_schedule.multiple=4"], ""),
        ([*RLOO, "align.batch_size=8"], ""),
        (["alignment=dpo", *RAMP], ""),
        (
            ["alignment=dpo", *RAMP, "parallelism=ddp", "parallelism.num_processes=2"],
            "cannot share a batch of",
        ),
    ],
)
def test_a_batch_that_does_not_part_evenly_is_refused(words: list[str], message: str, tmp_path: Path) -> None:
    found = refused(words, tmp_path)
    assert (message in found) if message else found == ""
    if "tears" in message:
        assert ("batch_schedule.multiple=4" in found) == ("ramp" in message)
