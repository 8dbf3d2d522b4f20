"""Models that transformers reads: all of their weights come from the checkpoint, or nothing is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import DataError

SHOWN = 4
"""Weights that an error names."""


def read_whole(source: str | Path, **how: Any) -> Any:
    """transformers' causal model of a directory, a hub name or (with `gguf_file`) a GGUF.

    Raises: DataError naming the weights that the checkpoint lacks or has in another shape, which
        transformers would draw at random, or files that are cut; what transformers raises besides
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    try:
        model, found = AutoModelForCausalLM.from_pretrained(
            source, output_loading_info=True, ignore_mismatched_sizes=True, **how
        )
    except SafetensorError as error:
        raise DataError(f"its weights cannot be read: {error}; was its download cut short?") from error
    faults = [f"no {name}" for name in sorted(found["missing_keys"])]
    for name, stored, wanted in sorted(found["mismatched_keys"]):
        faults.append(f"{name} of {tuple(stored)}, where its config says {tuple(wanted)}")
    if faults:
        more = f" and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise DataError(
            f"it does not hold all weights of {type(model).__name__}: {'; '.join(faults[:SHOWN])}{more}. "
            "They would be drawn at random, so nothing was loaded"
        )
    return model
