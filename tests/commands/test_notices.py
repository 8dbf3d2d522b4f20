"""What is printed when a model is loaded: nothing of libraries that says nothing about the run."""

import logging
import subprocess
import sys

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
