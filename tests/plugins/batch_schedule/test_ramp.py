"""The ramp of the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.conformance.tiny import methods, run
from harness.registry.known import registry


def test_the_ramp_is_a_straight_line_in_multiples() -> None:
    method: Any = registry().get("batch_schedule", "ramp")
    ramp = method(method.Config(start_share=0.25, ramp_share=0.5, multiple=4))
    assert [ramp.batch_size(64, p) for p in (0.0, 0.125, 0.25, 0.5, 1.0)] == [16, 28, 40, 64, 64]


def test_a_run_counts_the_sequences_it_really_saw(tmp_path: Path) -> None:
    method: Any = registry().get("batch_schedule", "ramp")
    ramp = method(method.Config(start_share=0.25, ramp_share=1.0))
    _, facts = run(tmp_path, methods=methods(batch_schedule=ramp), steps=10)
    expected = sum(ramp.batch_size(8, step / 10) for step in range(10))
    assert facts["sequences"] == expected < 80
