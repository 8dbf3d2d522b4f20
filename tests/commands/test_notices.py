"""What is printed when a model is loaded: nothing of libraries that says nothing about the run."""

import logging
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli import main
from harness.notices import QUIET, UNSAID, drop_notices


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


def test_a_name_that_peft_asks_by_is_no_news() -> None:
    from transformers import PreTrainedModel

    asked = PreTrainedModel.is_gradient_checkpointing.fget
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert asked(SimpleNamespace(is_activation_checkpointing=True))
        drop_notices()
        assert asked(SimpleNamespace(is_activation_checkpointing=True))
    assert len(said) == 1


def test_bars_of_loading_are_left_out_unless_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in QUIET:
        monkeypatch.setenv(name, "asked")
    monkeypatch.delenv("HF_HUB_DISABLE_PROGRESS_BARS")
    assert main(["--help"]) == 0
    assert os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] == "1"
    assert os.environ["DO_NOT_TRACK"] == "asked"


def test_a_script_draws_no_bars_whichever_function_it_calls_first() -> None:
    script = (
        "import harness; harness.compose(); import transformers; "
        "print(transformers.utils.logging.is_progress_bar_enabled())"
    )
    environment = {name: value for name, value in os.environ.items() if name not in QUIET}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.stdout.split() == ["False"], done.stderr


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
