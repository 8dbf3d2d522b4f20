"""What is printed when a model is loaded: nothing of libraries that says nothing about the run."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from harness.notices import UNSAID


@pytest.mark.slow
def test_importing_torchao_prints_nothing() -> None:
    pytest.importorskip("torchao")
    script = "import harness, torchao.quantization, torchao.prototype.mx_formats"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Failed to load" not in done.stderr
    assert "KernelPreference" not in done.stderr


def test_other_warnings_of_the_same_libraries_are_printed(caplog: pytest.LogCaptureFixture) -> None:
    assert "torchao" in UNSAID
    with caplog.at_level(logging.WARNING):
        logging.getLogger("torchao").warning("Failed to load _C.so: no such kernel")
        logging.getLogger("torchao").warning("this version does not fit")
    assert [record.message for record in caplog.records] == ["this version does not fit"]


PROGRESS = re.compile(r"\[ *\d+\.\d s\] .+")
"""What a run says of itself where no terminal is: a time, and what happened."""


@pytest.mark.slow
def test_a_sweep_says_nothing_on_stderr_but_how_far_it_is(tmp_path: Path) -> None:
    drawn = ["optimizer=muon", "peft=lora,vera", "quantizer=nf4,gguf", "evaluator=[perplexity]"]
    command = [sys.executable, "-m", "harness", "sweep", "scale=smoke", *drawn]
    environment = {**os.environ, "HARNESS_STORE": str(tmp_path / "store")}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if not PROGRESS.fullmatch(line)] == []
