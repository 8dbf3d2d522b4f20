"""Placing workers: here, or through a Hydra launcher (joblib, submitit, Ray), which starts workers."""

from __future__ import annotations

import hashlib
import os
import pickle
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from omegaconf import open_dict

from harness.errors import ConfigError, StoreError, UnknownNameError
from harness.plan.need import Need
from harness.plan.plan import Plan, directory
from harness.run.outcome import STATUSES
from harness.run.resources import Options
from harness.store.files import disk_errors
from harness.store.records import NAME

WORKER = "+harness.worker="
"""The override that turns a Hydra job into a worker of a plan."""
NODES_LAUNCHER = "hydra/launcher=submitit_slurm"
"""The override that chooses a launcher which can place one stage on several nodes."""
MEANING_OF_NULL = {
    "workers": "as many as the machine takes",
    "timeout": "no limit",
    "memory": "no limit",
    "total_memory": "what is free",
    "patience": "for ever",
}
RETRIED = (*(status for status in STATUSES if status != "ok"), "all")
"""What `hydra.sweeper.retry` may name."""
LOOK = 1.0
"""Seconds between two looks at what the workers have done."""
LEAVE = 5.0
"""Seconds a launcher gets to notice that its workers are done."""
_HERE = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


@dataclass(frozen=True, kw_only=True)
class Hydra:
    """What Hydra gives a sweeper."""

    context: Any
    task: Any
    config: Any

    @property
    def places_workers(self) -> bool:
        """Whether another launcher than Hydra's basic one was chosen."""
        return bool(self.config.hydra.launcher.get("_target_") != _HERE)

    @property
    def places_nodes(self) -> bool:
        """Whether the launcher can give several nodes to one job: submitit on SLURM."""
        return "partition" in self.config.hydra.launcher


def options(values: dict[str, Any]) -> Options:
    """The options of `hydra.sweeper.*`.

    Raises: ConfigError or UnknownNameError for a value that cannot work
    """
    retry = frozenset(item.strip() for item in str(values.get("retry") or "").split(",") if item.strip())
    for name in retry - {*RETRIED}:
        raise UnknownNameError(what="outcome for hydra.sweeper.retry", name=name, known=RETRIED)
    known = {f.name for f in fields(Options)} - {"retry"}
    chosen = {name: value for name, value in values.items() if name in known}
    if values.get("threads"):
        raise ConfigError(
            "hydra.sweeper.threads is no more: threads decide the last bits of a result, so they are options "
            f"of the stages; use threads={values['threads']}, or pretrain.threads={values['threads']} for one"
        )
    for name, value in chosen.items():
        if value is not None and not value > 0:
            raise ConfigError(
                f"hydra.sweeper.{name}={value} must be positive, or null: {MEANING_OF_NULL[name]}"
            )
    return Options(**chosen, retry=retry)


def launch(made: Plan, chosen: Options, hydra: Hydra, say: Callable[[str], None]) -> None:
    """Let the chosen launcher start workers, one launch for every resource class, and wait for their work.

    Returns when every stage is in the store and every record written, or when all launches have returned;
    what became of the cells is in the store either way, so a launcher's own error is only told.
    """
    needs = [Need.of(node) for node in made.missing()]
    classes = [max(needs)] if _takes_no_resources(hydra) else sorted(set(needs))
    launches = []
    for room in classes:
        # A job of several nodes is for stages of as many: it may make others, it is not started for them.
        waiting = sum(1 for need in needs if need.fits(room) and need.nodes == room.nodes)
        arguments = {"number": max(1, min(chosen.workers or 2, waiting)), "say": say}
        file = write_plan(made, chosen, room)
        launches.append(threading.Thread(target=_place, args=(made, hydra, room, file), kwargs=arguments))
    for thread in launches:
        thread.daemon = True  # A scheduler may take minutes to say what the store already shows.
        thread.start()
    told = ""
    while any(thread.is_alive() for thread in launches):
        stored = len(made.wanted()) - len(made.missing())
        done = sum(1 for cell in made.cells if (directory(made, cell) / NAME).is_file())
        if stored == len(made.wanted()) and done == len(made.cells):
            break
        state = f"{stored} of {len(made.wanted())} stages in the store, {done} of {len(made.cells)} records"
        if state != told:
            say(state)
            told = state
        time.sleep(LOOK)
    for thread in launches:
        thread.join(timeout=LEAVE)


def _place(
    made: Plan, hydra: Hydra, room: Need, file: Path, *, number: int, say: Callable[[str], None]
) -> None:
    """One launch: `number` workers, each with room for a stage of its class."""
    config = hydra.config.copy()
    with open_dict(config):
        if not any(text.startswith("hydra.sweep.dir=") for text in config.hydra.overrides.hydra):
            config.hydra.sweep.dir = str(made.graph.store.root / "launcher" / made.name)
        _ask_for(room, config.hydra.launcher)
    jobs = int(config.hydra.launcher.get("n_jobs", 0) or 0)
    try:
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra.context, task_function=hydra.task, config=config
        )
        placed = [[f"{WORKER}{file}"]] * (jobs if jobs > 0 else number)
        any(job.return_value for job in launcher.launch(placed, initial_job_idx=0))  # raises what ended one
    except Exception as error:
        reason = str(error).strip().splitlines()[:1]
        say(f"the launcher reports {type(error).__name__}: {''.join(reason)}")


def _takes_no_resources(hydra: Hydra) -> bool:
    """Whether a launcher cannot be asked for processors or GPUs, as joblib, so that classes mean nothing."""
    launcher = hydra.config.hydra.launcher
    return "cpus_per_task" not in launcher and "ray" not in launcher


def _ask_for(room: Need, launcher: Any) -> None:
    """Ask a launcher for the nodes, processors and GPUs of a class, in its own words, unless the user did."""
    if "cpus_per_task" in launcher:  # submitit
        if room.nodes > 1:
            launcher.nodes, launcher.tasks_per_node = room.nodes, 1
        if room.threads > 1 and launcher.cpus_per_task is None:
            launcher.cpus_per_task = room.threads
        if room.gpus and launcher.gpus_per_node is None and launcher.get("gres") is None:
            launcher.gpus_per_node = room.gpus
    elif "ray" in launcher:
        if room.threads > 1:
            launcher.ray.remote.setdefault("num_cpus", room.threads)
        if room.gpus:
            launcher.ray.remote.setdefault("num_gpus", room.gpus)


def write_plan(made: Plan, chosen: Options, room: Need) -> Path:
    """The plan as a file that workers on other machines read; it names this very code.

    A placed worker runs one stage at a time: whoever wants more at once asks for more workers.
    """
    folder = made.graph.store.root / "plans"
    content = pickle.dumps((replace(made, tuning=None), replace(chosen, workers=1), room))
    # Named by its content: a job that is requeued days later still finds the plan it was given, and a worker
    # runs that one alone, whoever else may write into the folder.
    file = folder / f"{made.name[:100]}-{hashlib.sha256(content).hexdigest()}.plan"
    temporary = file.with_suffix(f".{uuid.uuid4().hex[:8]}")
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(file)
    return file


def read_plan(file: Path) -> tuple[Plan, Options, Need]:
    """A plan that `write_plan` wrote.

    Raises: StoreError where it is missing, or where the code or the libraries here are not those it was made
    with: what they would make does not belong under its keys
    """
    try:
        content = file.read_bytes()
        if hashlib.sha256(content).hexdigest() != file.stem.rpartition("-")[2]:
            raise StoreError(
                f"{file} is not what its name says; somebody wrote over it. Start the sweep again"
            )
        made, chosen, room = pickle.loads(content)
    except (OSError, pickle.UnpicklingError, AttributeError, ImportError, EOFError, ValueError) as error:
        raise StoreError(f"{file} is no plan of this version ({error}); start the sweep again") from error
    assert isinstance(made, Plan)
    found = made.graph.differences(made.missing())
    if found:
        raise StoreError(
            f"{' and '.join(found)} on {os.uname().nodename} {'is' if len(found) == 1 else 'are'} not as the "
            f"sweep was planned with (for {next(iter(found.values()))}); start the sweep again, with one "
            "installation for all machines"
        )
    return made, chosen, room
