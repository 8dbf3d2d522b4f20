"""A sweep with a stated budget of memory: what does not fit together runs one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest
from third_party import harness

from harness.store import Store

SMALL, LARGE, HUGE = (16, 17), (128, 127), 256
"""Sequence lengths, whose trainings take by their bounds 4, 15 and 27 MiB."""
BUDGET = 24 * 2**20


def spans(root: Path) -> dict[int, tuple[float, float]]:
    """When the training at each sequence length began and ended."""
    store = Store(root)
    found = (store.get(key) for key in store.all_keys())
    return {
        artifact.meta["material"]["config"]["sequence_length"]: (
            artifact.meta["created"] - artifact.meta["seconds"],
            artifact.meta["created"],
        )
        for artifact in found
        if artifact.stage == "pretrain"
    }


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return max(one[0], other[0]) < min(one[1], other[1])


@pytest.mark.slow
def test_trainings_run_together_as_far_as_a_stated_budget_holds_them(tmp_path: Path, own_store: Path) -> None:
    lengths = ",".join(map(str, (*SMALL, *LARGE, HUGE)))
    command = ["sweep", "stages=[corpus,tokenizer,tokens,pretrain]", "scale=smoke", "corpus.max_bytes=300000"]
    command += [f"pretrain.sequence_length={lengths}", "pretrain.budget={unit:steps,amount:30}"]
    command += ["hydra.sweeper.workers=2", f"hydra.sweeper.total_memory={BUDGET}"]
    done = harness(command, cwd=tmp_path, start=True)
    assert done.returncode == 0, done.stdout + done.stderr
    took = spans(own_store)
    assert set(took) == {*SMALL, *LARGE, HUGE}, "what exceeds the budget by itself runs all the same"
    assert overlap(*(took[length] for length in SMALL))
    assert not overlap(*(took[length] for length in LARGE))
    assert not any(overlap(took[length], took[HUGE]) for length in (*SMALL, *LARGE))
