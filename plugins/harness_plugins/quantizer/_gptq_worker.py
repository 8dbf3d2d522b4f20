"""Runs in an interpreter of its own, without harness: quantizes a directory with auto_gptq or gptqmodel.

usage: python _gptq_worker.py DIRECTORY OUT; DIRECTORY holds a Hugging Face model, calibration.json (rows of
token ids) and options.json; OUT gets the library's own packed checkpoint
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def with_auto_gptq(directory: Path, out: Path, options: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The auto_gptq library."""
    import torch
    from auto_gptq import AutoGPTQForCausalLM, BaseQuantizeConfig

    config = BaseQuantizeConfig(**options["settings"], true_sequential=True)
    model = AutoGPTQForCausalLM.from_pretrained(str(directory), config, torch_dtype=torch.float16)
    examples = [{name: torch.tensor(value) for name, value in row.items()} for row in rows]
    model.quantize(examples, batch_size=options["batch_size"])
    model.save_quantized(str(out), use_safetensors=True)


def with_gptqmodel(directory: Path, out: Path, options: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The gptqmodel library."""
    os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it asks for one, and refuses it
    from gptqmodel import GPTQModel, QuantizeConfig

    model = GPTQModel.load(str(directory), QuantizeConfig(**options["settings"]))
    model.quantize(rows, batch_size=options["batch_size"])
    model.save(str(out))


def main(directory: Path, out: Path) -> None:
    """Quantize with the library that the options name."""
    options = json.loads((directory / "options.json").read_text())
    calibration = json.loads((directory / "calibration.json").read_text())
    rows = [{"input_ids": row, "attention_mask": [1] * len(row)} for row in calibration]
    library = {"auto_gptq": with_auto_gptq, "gptqmodel": with_gptqmodel}[options["library"]]
    library(directory, out, options, rows)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
