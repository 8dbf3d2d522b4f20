"""Runs under the interpreter of gptqmodel: opens exported directories as that library does, on a CPU.

Its plain kernels dequantize and multiply in float16.
usage: python read_exported.py IDS.pt OUT.pt DIRECTORY...
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")  # on two cores it asks for one, and refuses it
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import torch
from gptqmodel import BACKEND, GPTQModel


@torch.no_grad()
def read(directory: Path, ids: torch.Tensor) -> dict[str, Any]:
    """Logits, and every packed layer's weight by its own product with the identity."""
    layout = json.loads((directory / "config.json").read_text())["quantization_config"]["quant_method"]
    backend = {"gptq": BACKEND.GPTQ_TORCH, "awq": BACKEND.AWQ_TORCH}[layout]
    found = GPTQModel.load(str(directory), device="cpu", dtype=torch.float16, backend=backend).model
    layers = {name: module for name, module in found.named_modules() if hasattr(module, "qweight")}
    weights = {n: m(torch.eye(m.in_features, dtype=torch.float16)).T for n, m in layers.items()}
    return {"logits": found(input_ids=ids).logits.float(), "weights": weights}


if __name__ == "__main__":
    given = torch.load(sys.argv[1])
    torch.save({name: read(Path(name), given) for name in sys.argv[3:]}, sys.argv[2])
