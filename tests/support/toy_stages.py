"""Toy stages: real child processes without models. Imports little, so that the fork server starts at once."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from harness.errors import DivergedError, IncompatibleError
from harness.stage import Stage, Work


class Toy(Stage):
    """Writes the product of its inputs' numbers and its own; misbehaves on request; logs that it ran."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        number: int = 1
        seconds: float = 0.0
        fault: str = ""

    def run(self, work: Work) -> dict[str, Any]:
        log(work, "started")
        alone = watch_twice(work)
        getattr(Faults, work.config.fault or "none")(work)
        steps = 5
        done = len(list(work.checkpoints.glob("step*")))
        for step in range(done, steps):
            time.sleep(work.config.seconds / steps)
            (work.checkpoints / f"step{step}").touch()
            work.on_step(step, {"loss": 1.0 / (step + 1), "progress": (step + 1) / steps})
        product = work.config.number
        for artifact in work.inputs.values():
            product *= int((artifact.path / "number").read_text())
        (work.out / "number").write_text(str(product))
        if self.produces == "evaluation":
            (work.out / "metrics.json").write_text(
                f'[{{"task": "toy", "metric": "product", "value": {product}}}]'
            )
        log(work, "finished")
        os.close(alone)
        return {"product": product, "threads": int(os.environ["OMP_NUM_THREADS"]), "effects": {"toy": 1}}


class Faults:
    """How a stage can end otherwise."""

    @staticmethod
    def none(work: Work) -> None:
        pass

    @staticmethod
    def raises(work: Work) -> None:
        raise ValueError("a planted exception")

    @staticmethod
    def diverges(work: Work) -> None:
        raise DivergedError(7, "the loss is nan")

    @staticmethod
    def incompatible(work: Work) -> None:
        raise IncompatibleError("these two cannot work together")

    @staticmethod
    def killed(work: Work) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def killed_once(work: Work) -> None:
        marker = work.checkpoints / "killed"
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    @staticmethod
    def allocates(work: Work) -> None:
        """Memory through Python, more than the limit."""
        assert bytearray(10**11)

    @staticmethod
    def allocates_with_torch(work: Work) -> None:
        torch = import_module("torch")  # so that the fork server need not load it for every toy
        torch.zeros(10**11, dtype=torch.uint8)

    @staticmethod
    def exits(work: Work) -> None:
        sys.exit(3)

    @staticmethod
    def leaves_children(work: Work) -> None:
        """A grandchild that would outlive its parent."""
        child = os.fork()
        if child == 0:
            time.sleep(600)
            os._exit(0)
        (work.checkpoints.parents[1] / "grandchild").write_text(str(child))

    @staticmethod
    def fills_disk(work: Work) -> None:
        Path("/dev/full").write_text("x" * 100_000)


class Alpha(Toy):
    name = "alpha"
    produces = "documents"
    seeded = False


class Beta(Toy):
    name = "beta"
    needs = ("documents",)
    produces = "model"


class Gamma(Toy):
    name = "gamma"
    needs = ("model",)
    may_need = ("documents",)
    produces = "evaluation"

    @classmethod
    def parts(cls, cell: Any) -> Sequence[str]:
        return ("toy.first", "toy.second")


STAGES: dict[str, type[Stage]] = {"alpha": Alpha, "beta": Beta, "gamma": Gamma}


def log(work: Work, event: str) -> None:
    """One line per event, appended in one write."""
    line = f"{event} {work.stage} {work.part or '-'} {work.checkpoints.name} {os.getpid()}\n"
    file = os.open(work.checkpoints.parents[1] / "executions.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, line.encode())
    os.close(file)


def watch_twice(work: Work) -> int:
    """Logs whether the same stage runs elsewhere now, or is done already; returns the file that says it runs.

    A stage that was killed after its last line, before its artifact landed, rightly runs again: so a count
    of finished runs alone cannot tell.
    """
    root, key = work.checkpoints.parents[1], work.checkpoints.name
    file = os.open(root / f"running.{key}", os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        log(work, "overlaps")
    if (root / "artifacts" / key[:2] / key).exists():
        log(work, "again")
    return file
