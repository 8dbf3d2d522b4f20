"""Notices of libraries that are printed whatever is run, and say nothing about it."""

import logging
import os
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


def ask_for_quiet() -> None:
    """Have no library send, fork threads or draw bars that nobody asked for."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def drop_notices() -> None:
    """Keep those messages, and no others, from being logged."""
    for name in UNSAID:
        logging.getLogger(name).addFilter(_is_said)
    warnings.filterwarnings("ignore", message=RENAMED, category=FutureWarning)


def _is_said(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(word in message for word in UNSAID[record.name])
