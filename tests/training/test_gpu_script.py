"""The script for a GPU stays ready: all of it runs on a CPU at a tiny shape."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECTIONS = ("training in bf16", "training in bf16, compiled", "attention kernels", "bitsandbytes")


@pytest.mark.slow
def test_every_section_runs_without_a_gpu() -> None:
    command = [sys.executable, "tests/benchmarks/gpu.py", "--shape", "tiny", "--device", "cpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")][1:] == [*SECTIONS]
    assert any(line.strip().startswith("MFU") for line in lines)
    assert "has not run" not in done.stdout
