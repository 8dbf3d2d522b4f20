"""What this machine has, and how much of it is free."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

CONTROL_GROUPS = Path("/sys/fs/cgroup")
_FILES = (
    ("memory.max", "memory.current", "inactive_file"),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
)
"""Of version 2 and of version 1 of control groups: the limit, what is used, and the line of memory.stat
that says how much of that are files which could be dropped."""


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory() -> int:
    """Bytes of main memory: the least limit of this process's control groups, else the machine's."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(limit for limit, _ in _limits())])


def available_memory() -> int:
    """Bytes that could be allocated now without swapping or meeting a control group's limit."""
    left = [max(0, limit - used) for limit, used in _limits()]
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        left.append(int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]) * 1024)
    return min(left, default=memory())


def control_groups() -> list[Path]:
    """Folders of the control groups that count this process's memory, its own first, then those around it."""
    found: list[Path] = []
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            mount = CONTROL_GROUPS / "memory" if controllers else CONTROL_GROUPS
            folder = mount / path.lstrip("/")  # In a container, the path may be one of the host's.
            found += [place for place in (folder, *folder.parents) if place.is_relative_to(mount)]
    return found


def _limits() -> list[tuple[int, int]]:
    """(limit, used) bytes of each control group that has a limit; files it could drop are not used."""
    found = []
    for folder in control_groups():
        for limit, used, cache in _FILES:
            with contextlib.suppress(OSError, ValueError):
                lines = (folder / "memory.stat").read_text().splitlines()
                droppable = next((int(line.split()[1]) for line in lines if line.split()[0] == cache), 0)
                numbers = int((folder / limit).read_text()), int((folder / used).read_text())
                found.append((numbers[0], numbers[1] - droppable))
    return found


def usage(group: int) -> tuple[int, float] | None:
    """(bytes resident, processor seconds) of a process group on this machine; None where it is gone."""
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    resident, ticks, found = 0, 0, False
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            fields = stat.read_text().rpartition(")")[2].split()
            if int(fields[2]) == group:
                found = True
                ticks += int(fields[11]) + int(fields[12])
                resident += int(fields[21]) * page
    return (resident, ticks / tick) if found else None


def one_thread_of_numpy() -> None:
    """Keep numpy's own products to one thread: read once, when it is loaded, before stages share it."""
    os.environ["OPENBLAS_NUM_THREADS"] = "1"


def resident_bytes(pid: int) -> int:
    """Bytes of a process of this machine that are in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def gpus() -> tuple[int, ...]:
    """Indices of the visible NVIDIA GPUs, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return tuple(range(len([item for item in visible.split(",") if item.strip() not in ("", "-1")])))
    return tuple(range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))


def visible_gpus(indices: Iterable[int]) -> str:
    """The value of CUDA_VISIBLE_DEVICES that shows a process only these of the GPUs visible here."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [name.strip() for name in visible.split(",")] if visible else None
    return ",".join(names[index] if names else str(index) for index in indices)
