"""The machine's fingerprint: what a measured speed depends on."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from pathlib import Path


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
