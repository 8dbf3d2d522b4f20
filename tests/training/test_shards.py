"""Sharded checkpoints: each process writes its part, and any layout goes on from them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
import turns

from harness.conformance import test_parallelism as suite
from harness.conformance.tiny import TinySource, methods, run
from harness.errors import StoreError
from harness.registry.known import registry
from harness.training import checkpoint, shards

LAYOUTS: dict[str, tuple[str, dict[str, int]]] = {
    "one process": ("single", {}),
    "ddp": ("ddp", {"num_processes": 2}),
    "zero1": ("zero1", {"num_processes": 2}),
    "zero2": ("zero2", {"num_processes": 2}),
    "fsdp": ("fsdp", {"num_processes": 2}),
    "four": ("fsdp", {"num_processes": 4}),
    "tensor": ("tensor", {"num_processes": 2}),
    "pipeline": ("pipeline", {"num_processes": 2}),
    "grid": ("mesh", {"num_processes": 4, "pipeline": 2}),
}


def layout(name: str) -> Any:
    method, options = LAYOUTS[name]
    known: Any = registry().get("parallelism", method)
    return known(known.Config(**options))


def trained(folder: Path, name: str, steps: int, *, tied: bool = False, **chosen: Any) -> dict[str, Any]:
    """Weights after so many steps in float64, of which checkpoints of steps 3 and 6 remain."""
    constant: Any = registry().get("schedule", "constant")
    flat = constant(constant.Config(warmup_share=0.0))
    model = suite.transformer(tied=tied)
    run(
        folder,
        model,
        source=TinySource(),
        methods=methods(parallelism=layout(name), schedule=flat, **chosen),
        steps=steps,
        checkpoint_every=3,
        log_every=1,
    )
    return {key: value.clone() for key, value in model.state_dict().items()}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("fsdp", "one process"),
        pytest.param("fsdp", "pipeline", marks=turns.ALWAYS),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in [
                ("fsdp", "four"),
                ("four", "fsdp"),
                ("fsdp", "ddp"),
                ("fsdp", "zero1"),
                ("zero2", "tensor"),
                ("tensor", "one process"),
                ("pipeline", "fsdp"),
                ("grid", "tensor"),
                ("pipeline", "grid"),
            ]
        ),
    ],
)
def test_a_run_goes_on_in_another_layout(tmp_path: Path, before: str, after: str) -> None:
    expected = trained(tmp_path / "whole", "one process", 8)
    trained(tmp_path / "moved", before, 5)
    # Without a further step, weights are those of the checkpoint, bit for bit.
    stood, moved = trained(tmp_path / "moved", before, 3), trained(tmp_path / "moved", after, 3)
    for key, value in stood.items():
        assert torch.equal(value, moved[key]), key
    # Further steps need the optimizer's state, which float64 shows to its last digits.
    found = trained(tmp_path / "moved", after, 8)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-8, atol=1e-9, msg=key)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_tied_weights_and_rollbacks_to_the_start(tmp_path: Path, tied: bool) -> None:
    rollback: Any = registry().get("stabilizer", "spike_rollback")
    ends = [
        trained(tmp_path / name.replace(" ", ""), name, 4, tied=tied, stabilizers=(rollback(),))
        for name in ("one process", "fsdp")
    ]
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, rtol=1e-8, atol=1e-9, msg=key)


def test_no_process_writes_all_and_old_shards_go(tmp_path: Path) -> None:
    trained(tmp_path, "fsdp", 10)
    assert checkpoint.steps(tmp_path) == [6, 9]
    folders = sorted(tmp_path.glob("*.shards"))
    assert [folder.name.partition(".")[0] for folder in folders] == ["step-000000006", "step-000000009"]
    sizes = [file.stat().st_size for file in sorted(folders[-1].glob("*.distcp"))]
    assert len(sizes) == 2
    assert max(sizes) < 0.6 * sum(sizes)
    assert (tmp_path / "step-000000009.pt").stat().st_size < 0.5 * sum(sizes)


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, "fsdp", 5)
    (table,) = tmp_path.glob("*.shards/.metadata")
    whole = table.read_bytes()
    table.write_bytes(pickle.dumps(print))
    with pytest.raises(StoreError, match=r"no whole checkpoint \(builtins.print is not what"):
        trained(tmp_path, "one process", 6)
    table.write_bytes(whole)
    next(table.parent.glob("*.distcp")).unlink()
    with pytest.raises(StoreError, match="no whole checkpoint"):
        trained(tmp_path, "one process", 6)


def test_whole_checkpoints_are_not_read_in_parts(tmp_path: Path) -> None:
    trained(tmp_path, "one process", 5)
    with pytest.raises(StoreError, match="go on with parallelism=single or ddp"):
        trained(tmp_path, "fsdp", 6)


def test_a_table_of_shards_holds_values_alone() -> None:
    for module, names in shards.VALUES.items():
        assert not {name for name in names if "." in name}, module
