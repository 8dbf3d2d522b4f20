"""One stage: its inputs, its directory, its checkpoints, its artifact. Runs in a child process."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.forms import misfit
from harness.plan.files import CACHE, Files, check_unchanged
from harness.plan.node import Node
from harness.registry.known import registry
from harness.run.child import Report
from harness.run.metrics import METRICS, settle_metrics
from harness.run.presence import Quiet
from harness.stage import Work
from harness.store import Artifact, Store
from harness.store.external import external
from harness.store.recorded import Facts

if TYPE_CHECKING:
    from harness.training.meeting import Meeting

OnStep = Callable[[int, dict[str, float]], None]
STEPS = "steps.jsonl"
"""File of an artifact with the logging steps of its training, for trackers of cells that share it."""
PASSED = {"documents", "requests"}
"""Facts of a stage that passes such things, not steps of a training."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """A stage to run, picklable; calling it makes the artifact and returns the facts."""

    node: Node
    store: Path
    externals: dict[str, str]
    device: str
    meeting: Meeting | None = None
    """Where the nodes of this stage meet, if there are several."""
    out: Path | None = None
    """Where a node that only trains along puts what is thrown away; None for the one that stores."""
    quiet: Quiet | None = None
    """Of a stage that measures a speed: whether it is alone on its machine."""

    def __call__(self, report: Report) -> dict[str, Any]:
        store = Store(self.store)
        node = self.node
        if self.out is not None and self.meeting is not None:
            work = self._work(store, self.out, self.meeting.folder.parent, _unheard, _unheard)
            node.maker().run(work)
            return {}
        checkpoints = store.checkpoints(node.key)
        steps = Steps(checkpoints / STEPS)

        def on_step(step: int, facts: dict[str, float]) -> None:
            clean = {name: float(value) for name, value in facts.items()}
            steps.add(step, clean)
            report("step", (step, clean))

        def on_progress(done: int, facts: dict[str, float]) -> None:
            steps.add(done, facts)
            report("progress", (done, facts))

        meta: dict[str, Any] = {
            "part": node.part,
            "seed": node.seed,
            "threads": node.threads,
            "material": node.material,
            "host": os.uname().nodename,
            "externals": {k: v for k, v in self.externals.items() if k in node.inputs.values()},
        }
        started = time.monotonic()
        with store.create(node.key, stage=node.stage, kind=node.kind, inputs=node.inputs, meta=meta) as out:
            work = self._work(store, out, checkpoints, on_step, on_progress)
            self._check_files(store)
            meta["facts"] = _facts(node.maker().run(work), by=node.title)
            if node.kind == "evaluation":
                settle_metrics(out / METRICS, by=node.title)
            meta["seconds"] = time.monotonic() - started
            self._check_files(store)
            if self.quiet is not None:
                meta["alone"] = self.quiet.held()
            steps.finish(out / STEPS)
        return meta["facts"]  # type: ignore[no-any-return]

    def _work(self, store: Store, out: Path, checkpoints: Path, on_step: OnStep, on_progress: OnStep) -> Work:
        node = self.node
        return Work(
            stage=node.stage,
            maker=node.maker,
            axes=node.axes,
            refers=lambda axis: registry().model_refs(axis),  # loaded where a stage asks
            part=node.part,
            config=node.config,
            choices=node.choices,
            inputs={name: self._artifact(store, key) for name, key in node.inputs.items()},
            seed=node.seed or 0,
            device=self.device,
            out=out,
            checkpoints=checkpoints,
            cache=store.root / "cache",
            load=lambda key: self._artifact(store, key),
            model_path=node.cell.model_path(),
            spec=node.cell.spec,
            on_step=on_step,
            on_progress=on_progress,
            meeting=self.meeting,
        )

    def _check_files(self, store: Store) -> None:
        """That the files from outside are those of the key, before and after it read them.

        Raises: ChangedError
        """
        node, files = self.node, Files(store.root / CACHE)
        check_unchanged(node.material["files"], files.of(node.stage, node.config, node.choices))
        files.save()

    def _artifact(self, store: Store, key: str) -> Artifact:
        if key not in self.externals:
            return store.get(key)
        found = external(self.externals[key], cache=store.root / CACHE)
        check_unchanged({self.externals[key]: key}, {self.externals[key]: found.key})
        return found


def _facts(measured: Any, *, by: str) -> dict[str, Any]:
    """What a stage measured, as JSON.

    Raises: HarnessError where no record could hold it
    """
    found: dict[str, Any] = jsonable(measured)
    if wrong := misfit(found, dict, "what it returns") or misfit(found, Facts, "facts"):
        raise HarnessError(f"{by}: {wrong}; a stage returns a mapping of facts")
    return found


def _unheard(step: int, facts: dict[str, float]) -> None:
    return None


class Steps:
    """The logging steps of a training, kept beside its checkpoints so that a kill loses none; and how far a
    stage that passes documents or requests is, which no artifact keeps."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, step: int, facts: dict[str, float]) -> None:
        """Append one step."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **jsonable(facts)}) + "\n")

    def finish(self, target: Path) -> None:
        """Write the steps in order, each once (a resumed training repeats some), if there were any."""
        found = [(step, facts) for step, facts in read_steps(self.path) if not PASSED & facts.keys()]
        if found:
            lines = (json.dumps({"step": step, **facts}) for step, facts in found)
            target.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_steps(path: Path) -> list[tuple[int, dict[str, float]]]:
    """Steps of a file in order, the last of each number; empty where there is no file."""
    found: dict[int, dict[str, float]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []
    for line in lines:
        with contextlib.suppress(ValueError):  # cut off by a kill, or damaged
            facts = json.loads(line)
            if not misfit(facts, dict[str, float | None]) and isinstance(facts.get("step"), int):
                step = facts.pop("step")
                found[step] = {name: value for name, value in facts.items() if value is not None}
    return sorted(found.items())


def jsonable(value: Any) -> Any:
    """Facts as JSON: tensors and array scalars as numbers, what is not finite as null, paths as text."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [jsonable(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    raise TypeError(f"a stage's facts must be JSON, not {type(value).__name__}: {value!r}")
