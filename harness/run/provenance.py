"""Where, when and with what a cell ran: the code of harness and of the user's project, libraries, machine."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
from harness.registry.known import registry
from harness.store.fingerprint import versions

LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "lm_eval", "numpy", "pandas", "hydra-core")
ROOT = Path(harness.__file__).parents[1]
"""The checkout of harness, or the folder that its wheel is installed in."""
UNKNOWN = "unknown"
"""In place of the hash of a difference that git did not tell."""
LARGEST = 2**20
"""Bytes of an added file that is read."""
SOURCES = ("harness", "plugins", "conf", "pyproject.toml")
"""What of the checkout decides results: reports that a sweep writes leave it clean."""


def provenance(started: float) -> dict[str, Any]:
    """Of a cell whose sweep started then (seconds since 1970)."""
    stamp = "%Y-%m-%dT%H:%M:%SZ"
    return {
        **_static(),
        "started": time.strftime(stamp, time.gmtime(started)),
        "finished": time.strftime(stamp, time.gmtime()),
    }


@functools.cache
def _static() -> dict[str, Any]:
    return {
        "harness": versions(("harness-lm",))["harness-lm"],
        "git": of_harness(ROOT),
        "project": of_project(Path.cwd()),
        "plugins": {source.package: source.version for source in registry().sources().values()},
        "versions": versions(LIBRARIES),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "hardware": hardware(),
        "command": " ".join(sys.argv),
    }


def of_harness(root: Path) -> dict[str, Any]:
    """State of the checkout that harness runs from; of a wheel, the hash of its list of files."""
    if _git(root, "ls-files", "--error-unmatch", "harness/__init__.py") is not None:
        return git_state(root, SOURCES)
    try:
        listed = metadata.distribution("harness-lm").read_text("RECORD") or ""
    except metadata.PackageNotFoundError:
        listed = ""
    return {"commit": "", "dirty": False, "diff": "", "wheel": _hash(listed.encode()) if listed else ""}


def of_project(folder: Path) -> dict[str, Any]:
    """State of the user's repository that the command was given in; empty outside of one and in harness's."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or top == _git(ROOT, "rev-parse", "--show-toplevel"):
        return {}
    return git_state(Path(os.fsdecode(top)), ())


def git_state(root: Path, paths: Sequence[str]) -> dict[str, Any]:
    """Commit of a checkout, whether these paths (none: all) differ from it, and a hash of how, with what is
    not tracked and not ignored; empty values outside a repository.
    """
    commit = _git(root, "rev-parse", "HEAD")
    if commit is None:
        return {"commit": "", "dirty": False, "diff": ""}
    changed = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-textconv", "--", *paths)
    added = _git(root, "ls-files", "--others", "--exclude-standard", "-z", "--", *paths)
    if changed is None or added is None:  # it takes too long, say
        return {"commit": commit.decode(), "dirty": True, "diff": UNKNOWN}
    content = [changed]
    for name in sorted(added.split(b"\0")) if added else ():
        content += [name, _content(root / os.fsdecode(name))]
    dirty = bool(changed or added)
    return {"commit": commit.decode(), "dirty": dirty, "diff": _hash(b"\0".join(content)) if dirty else ""}


def _content(file: Path) -> bytes:
    """What tells an added file from others: what is in it; of one too large for code, its size."""
    try:
        size = file.stat().st_size
        return file.read_bytes() if file.is_file() and size <= LARGEST else str(size).encode()
    except OSError:
        return b""


def hardware() -> dict[str, Any]:
    """Processor, cores, memory in bytes, and GPUs where there are any."""
    found: dict[str, Any] = {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    if Path("/dev/nvidiactl").exists() and shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        found["gpus"] = answer.stdout.strip().splitlines()
    return found


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git answers; None where it is not there, or says no."""
    # A checkout of another owner (a container's mount) is read, never run.
    command = ["git", "-c", "safe.directory=*", "-C", str(root), *arguments]
    # Started by a hook of git, the environment names another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        answer = subprocess.run(command, capture_output=True, env=environment, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.rstrip(b"\n") if answer.returncode == 0 else None


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
