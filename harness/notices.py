"""Notices of libraries that are printed whatever is run, and say nothing about it."""

import logging
import os
import sys
import warnings

UNSAID = {
    "torchao": ("Failed to load ",),
    "torch.utils._pytree": ("KernelPreference", "ScaleCalculationMode"),
    "bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward",),
    "matplotlib.font_manager": ("Matplotlib is building the font cache",),
}
"""By logger, words of messages to drop. transformers imports torchao with every model, and peft bitsandbytes:
kernels of other devices do not load, and two enums are registered as torch no longer asks for."""
RENAMED = "`is_gradient_checkpointing` is deprecated"
"""What transformers warns of, and peft asks of every model that gets an adapter."""
QUIET = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
"""Settings of libraries, read when they are loaded; what the environment says already stays."""
SPINS = "3000"
"""Times that a thread of OpenMP looks whether the others are there before it sleeps. By default it looks for
a millisecond, in which a busy machine gives the others no core: a stage of two threads ran at a tenth of the
speed of one (docs/speed.md)."""


def ask_for_quiet() -> None:
    """Have no library send, fork threads, draw bars or hold a core in vain that nobody asked for."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    if "OMP_WAIT_POLICY" not in os.environ and "GOMP_SPINCOUNT" not in os.environ:
        os.environ["GOMP_SPINCOUNT"] = SPINS
        if "torch" in sys.modules:
            _deaf.add("torch")


def is_deaf(library: str) -> bool:
    """Whether a library was loaded in this process before it could read what was asked for."""
    return library in _deaf


_deaf: set[str] = set()


def drop_notices() -> None:
    """Keep those messages, and no others, from being logged."""
    for name in UNSAID:
        logging.getLogger(name).addFilter(_is_said)
    warnings.filterwarnings("ignore", message=RENAMED, category=FutureWarning)


def _is_said(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(word in message for word in UNSAID[record.name])
