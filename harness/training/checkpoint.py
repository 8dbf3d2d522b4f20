"""Checkpoints: everything a bit-identical resume needs, written so that a kill leaves the old or the new."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness.errors import ConfigError, StoreError

KEPT = 2
"""Checkpoints kept: the latest, and one before it for a rollback."""
log = logging.getLogger("harness.training")


def write(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write a checkpoint atomically and drop all but the last `KEPT`.

    Raises: ConfigError where the state holds more than tensors and plain values, which could not be read back
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}.pt"
    temporary = folder / f".{path.name}.{os.getpid()}"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    strange = torch.serialization.get_unsafe_globals_in_checkpoint(temporary)
    if strange:
        temporary.unlink()
        raise ConfigError(
            f"a checkpoint cannot hold {', '.join(strange)}; a `state_dict` gives tensors, numbers, strings, "
            "and lists and dicts of them"
        )
    temporary.replace(path)
    for old in steps(folder)[:-KEPT]:
        (folder / f"step-{old:09d}.pt").unlink(missing_ok=True)
    for leftover in folder.glob(".step-*"):
        leftover.unlink(missing_ok=True)
    _drop_shards(folder, path, state.get("shards"))
    return path


def shards_name(step: int, version: str) -> str:
    """The folder of what processes write each for itself; one of its own whenever a step is written."""
    return f"step-{step:09d}.{version}.shards"


def _drop_shards(folder: Path, written: Path, named: str | None) -> None:
    """Delete the shards of checkpoints that are no more, and of this one all but what it names."""
    for shards in folder.glob("step-*.shards"):
        owner = folder / f"{shards.name.partition('.')[0]}.pt"
        if not owner.exists() or (owner == written and shards.name != named):
            shutil.rmtree(shards, ignore_errors=True)


def steps(folder: Path) -> list[int]:
    """Steps that a checkpoint exists of, in order."""
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.glob("step-*.pt"))


def last(folder: Path) -> int | None:
    """The latest step whose checkpoint is whole, or None.

    A damaged one is put aside, and named in the stage's log.
    """
    for step in reversed(steps(folder)):
        path = folder / f"step-{step:09d}.pt"
        if _is_whole(path):
            return step
        aside = path.with_suffix(".damaged")
        log.warning(
            "%s is damaged; it was moved to %s, and the stage goes on from before it", path, aside.name
        )
        path.replace(aside)
    return None


def _is_whole(path: Path) -> bool:
    """Whether every part of a checkpoint has the checksum that it was written with."""
    try:
        with zipfile.ZipFile(path) as parts:
            return parts.testzip() is None
    except (OSError, EOFError, zipfile.BadZipFile):
        return False


def drop_after(folder: Path, step: int) -> None:
    """Delete the checkpoints of later steps."""
    for later in steps(folder):
        if later > step:
            (folder / f"step-{later:09d}.pt").unlink()


def read(folder: Path, step: int) -> dict[str, Any]:
    """The checkpoint of a step, on the CPU. Code in it is never run: the folder may be shared with others.

    Raises: StoreError where it holds anything but tensors and plain values
    """
    path = folder / f"step-{step:09d}.pt"
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise StoreError(
            f"{path} is no checkpoint of this version, or none at all ({str(error).splitlines()[0]}); "
            "delete it, and the stage begins anew"
        ) from error
    return state


def rank() -> int:
    """This process's number among those that train together."""
    return dist.get_rank() if dist.is_initialized() else 0


def num_processes() -> int:
    """How many train together."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_first() -> bool:
    """Whether this process writes."""
    return rank() == 0


def gathered(value: Any) -> list[Any]:
    """A small value of every process, in order of rank."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


def rng_state(device: torch.device) -> dict[str, Any]:
    """State of the streams that forward passes draw from."""
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def restore_rng(state: dict[str, Any], device: torch.device) -> None:
    """Continue the streams."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)
