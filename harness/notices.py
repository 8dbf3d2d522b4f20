"""Notices of libraries that are printed whatever is run, and say nothing about it."""

import logging

UNSAID = {
    "torchao": ("Failed to load ",),
    "torch.utils._pytree": ("KernelPreference", "ScaleCalculationMode"),
    "bitsandbytes.backends.cpu.ops": ("Failed to load CPU gemm_4bit_forward",),
    "matplotlib.font_manager": ("Matplotlib is building the font cache",),
}
"""By logger, words of messages to drop. transformers imports torchao with every model, and peft bitsandbytes:
kernels of other devices do not load, and two enums are registered as torch no longer asks for."""


def drop_notices() -> None:
    """Keep those messages, and no others, from being logged."""
    for name in UNSAID:
        logging.getLogger(name).addFilter(_is_said)


def _is_said(record: logging.LogRecord) -> bool:
    message = record.getMessage()
    return not any(word in message for word in UNSAID[record.name])
