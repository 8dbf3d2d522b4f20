"""Several processes: errors, events, resume."""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import turns

from harness.conformance.tiny import FakeRun, TinyModel, TinySource, methods, run
from harness.errors import ConfigError, DivergedError, LostError, StoreFullError
from harness.registry.known import registry
from harness.run.outcome import FULL, from_exception
from harness.training import distribution
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.meeting import Meeting
from harness.training.settings import Budget, Settings, Unit


def two(name: str = "ddp") -> Any:
    method = registry().get("parallelism", name)
    return methods(parallelism=method(method.Config(num_processes=2)))  # type: ignore[call-arg]


def test_errors_of_processes_are_raised_in_the_parent(tmp_path: Path) -> None:
    def broken(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        result = language_modeling_loss(model, batch)
        return result._replace(total=result.total * math.nan)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(DivergedError) as error:
        run(tmp_path, methods=two(), loss=broken, steps=4)
    assert error.value.step == 0
    assert signal.getsignal(signal.SIGTERM) is before, "the launcher's signal handlers stay behind"


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size=7 must be a multiple of the 2 processes"):
        run(tmp_path, methods=two(), batch_size=7)


def test_a_process_that_dies_ends_the_run(tmp_path: Path) -> None:
    def deadly(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        if os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGKILL)
        return language_modeling_loss(model, batch)

    # Whichever is noticed first: the dead process, or the connection that the other one lost.
    with pytest.raises(LostError):
        run(tmp_path, methods=two(), loss=deadly)


def to_full_disk() -> None:
    """As a process's own file, its part of a checkpoint, or what a library writes, ends on a full disk."""
    with open("/dev/full", "wb", buffering=0) as file:
        file.write(b"1")


def wrapped() -> None:
    try:
        to_full_disk()
    except OSError as error:
        raise ValueError("the checkpoint was not written") from error


def saved() -> None:
    with open("/dev/full", "wb") as file:
        torch.save({"x": torch.zeros(1 << 16)}, file)


FILLED: dict[str, Callable[[], None]] = {
    "a file": to_full_disk,
    "torch.save": saved,
    "an error raised from it": wrapped,
}


@pytest.mark.parametrize("rank", ["0", "1"])
@pytest.mark.parametrize("fill", FILLED.values(), ids=FILLED)
def test_a_full_disk_under_any_process_pauses_the_sweep(
    tmp_path: Path, fill: Callable[[], None], rank: str
) -> None:
    def filling(model: torch.nn.Module, batch: dict[str, torch.Tensor]) -> Any:
        if os.environ["RANK"] == rank:
            fill()
        return language_modeling_loss(model, batch)

    with pytest.raises(StoreFullError) as error:
        run(tmp_path, methods=two(), loss=filling)
    assert from_exception(error.value, stage="pretrain").status == FULL


@pytest.mark.parametrize(
    "name", ["zero1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("ddp", "fsdp"))]
)
def test_steps_are_reported_once_and_a_resumed_run_ends_alike(tmp_path: Path, name: str) -> None:
    ends = []
    for folder, amounts in (("whole", [12]), ("resumed", [7, 12])):
        model, work = TinyModel(dropout=0.1), FakeRun(tmp_path / folder)
        for amount in amounts:
            model = TinyModel(dropout=0.1)
            settings = Settings(
                budget=Budget(unit=Unit.steps, amount=amount),
                batch_size=8,
                sequence_length=12,
                log_every=1,
                checkpoint_every=3,
            )
            constant: Any = registry().get("schedule", "constant")
            flat = constant(constant.Config(warmup_share=0.0))
            chosen = methods(parallelism=two(name).parallelism, schedule=flat)
            source = TinySource()
            train(model, source, language_modeling_loss, work=work, settings=settings, methods=chosen)
            assert source.state_dict() == {"position": 8 * amount}, "what it met is known where it was asked"
        assert [step for step, _ in work.seen][-3:] == [10, 11, 12]
        ends.append(model.state_dict())
    for key, value in ends[0].items():
        assert torch.equal(value, ends[1][key]), key


def node(number: int, folder: Path, results: Any, *, die: bool, patience: float) -> None:
    """One of two nodes: what a launcher's task runs of a stage, twice, as a stage that trains twice does."""
    distribution.JOIN_SECONDS = patience
    meeting = Meeting(folder=folder / "meeting", node=number, num_nodes=2)
    work = FakeRun(folder / "shared", meeting=meeting)
    known = registry().get("parallelism", "ddp")
    across = methods(parallelism=known(known.Config(num_nodes=2)))  # type: ignore[call-arg]
    model = TinyModel()
    try:
        for steps in (3, 6):
            if die and steps == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            train_tiny(model, work, across, steps)
        results.put((number, {name: p.detach().numpy() for name, p in model.named_parameters()}, work.seen))
    except LostError as error:
        results.put((number, str(error), work.seen))
    except BaseException:
        results.put((number, traceback.format_exc(), work.seen))
        raise


def train_tiny(model: TinyModel, work: FakeRun, chosen: Any, steps: int) -> None:
    budget = Budget(unit=Unit.steps, amount=steps)
    settings = Settings(budget=budget, batch_size=8, sequence_length=12, log_every=1, checkpoint_every=3)
    train(model, TinySource(), language_modeling_loss, work=work, settings=settings, methods=chosen)


def nodes(folder: Path, *, die: bool = False, patience: float = 200.0) -> dict[int, Any]:
    """Two nodes, each a process of its own as on two machines; the second may die in its second training."""
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    started = [
        context.Process(
            target=node,
            args=(number, folder, results),
            kwargs={"die": die and number == 1, "patience": patience},
        )
        for number in (0, 1)
    ]
    for process in started:
        process.start()
    found = [results.get(timeout=280) for _ in range(1 if die else 2)]
    for process in started:
        process.join(timeout=120)
    return {number: (value, seen) for number, value, seen in found}


@turns.ALWAYS
def test_two_nodes_of_one_process_end_as_one_node_of_two_does(tmp_path: Path) -> None:
    model, work = TinyModel(), FakeRun(tmp_path / "one")
    for steps in (3, 6):
        train_tiny(model, work, two(), steps)
    found = nodes(tmp_path)
    for number in (0, 1):
        assert isinstance(found[number][0], dict), found[number][0]
        for name, parameter in model.named_parameters():
            assert (found[number][0][name] == parameter.detach().numpy()).all(), name
    assert [step for step, _ in found[0][1]] == [step for step, _ in work.seen], "node 0 reports"
    assert found[1][1] == [], "the other does not"


@turns.ALWAYS
def test_a_node_that_goes_away_leaves_the_other_with_a_reason(tmp_path: Path) -> None:
    found = nodes(tmp_path, die=True, patience=20.0)
    assert "not all nodes came to train, or stayed" in found[0][0]
