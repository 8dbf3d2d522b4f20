"""The machine: its fingerprint, and a lock that keeps measured speeds apart."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from harness.errors import HarnessError


@cache
def hardware() -> dict[str, str]:
    """What a measured speed depends on: processors, their number, and GPUs. Imports nothing heavy."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    model = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    gpus = []
    for path in sorted(Path("/proc/driver/nvidia/gpus").glob("*/information")):
        found = re.search(r"^Model:\s*(.+)$", path.read_text(), re.MULTILINE)
        gpus.append(found[1] if found else "NVIDIA")
    return {
        "machine": platform.machine(),
        "processor": model[1] if model else platform.processor(),
        "processors": str(os.cpu_count()),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "gpus": ", ".join(gpus),
    }


@contextlib.contextmanager
def alone_on_machine(*, timeout: float = 3600.0) -> Iterator[float]:
    """Holds the machine-wide lock of measurements; yields the seconds waited for it.

    Raises: HarnessError where it is not had within `timeout` seconds
    """
    path = Path(tempfile.gettempdir()) / "harness-measurement.lock"
    start = time.monotonic()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() - start > timeout:
                    raise HarnessError(
                        f"another measurement has held {path} for {timeout:.0f} s; end it and run again"
                    ) from None
                time.sleep(0.02)
        yield time.monotonic() - start
    finally:
        os.close(descriptor)
