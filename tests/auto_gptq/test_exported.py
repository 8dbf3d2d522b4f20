"""Exported directories in the layouts gptq and awq, opened by gptqmodel: `make test-gptqmodel`."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from exported_models import IDS, packed

from harness.axes.quantizer import unpacked
from harness.commands.compare import _write_model
from harness.ops.packed_linear import PackedLinear

PYTHON = os.environ.get("GPTQMODEL_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="`make test-gptqmodel` gives the interpreter")
READER = Path(__file__).with_name("read_exported.py")
GROUPED = {"granularity": "group", "group_size": 32}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    ("gptq", "rtn", {"bits": 2, "symmetric": True}),
    ("gptq", "rtn", {"bits": 3}),
    ("gptq", "gptq", {"bits": 4}),
    ("gptq", "rtn", {"bits": 4, "symmetric": True}),
    ("gptq", "rtn", {"bits": 8}),
    ("gptq", "awq", {"bits": 4, "fold": True}),
    ("awq", "rtn", {"bits": 4}),
    ("awq", "awq", {"bits": 4, "fold": True}),
]


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """For each case what ours computes, also in float16, and what the library makes of the export."""
    root, cases = tmp_path_factory.mktemp("exported"), []
    for index, (layout, name, options) in enumerate(CASES):
        choice = tiny.choose("quantizer", name, **GROUPED, **options)
        loaded, logits = packed(tiny.llama(dim=64), choice, root / "tokenizer")
        layers = {n: m.dequantize() for n, m in loaded.model.named_modules() if isinstance(m, PackedLinear)}
        _write_model(loaded, root / str(index), layout=layout)
        with torch.no_grad():
            half = unpacked(loaded.model).half()(input_ids=IDS).logits.float()
        cases.append({"logits": logits, "half": half, "weights": layers})
    torch.save(IDS, root / "ids.pt")
    out, directories = root / "out.pt", [str(root / str(index)) for index in range(len(CASES))]
    command = [PYTHON, str(READER), str(root / "ids.pt"), str(out), *directories]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-3000:]
    found = torch.load(out)
    return [case | {"theirs": found[directory]} for case, directory in zip(cases, directories, strict=True)]


@pytest.mark.parametrize("index", range(len(CASES)), ids=str)
def test_gptqmodel_reads_every_weight_and_the_same_logits(index: int, read: list[dict[str, Any]]) -> None:
    ours, theirs = read[index], read[index]["theirs"]
    assert theirs["weights"].keys() == ours["weights"].keys()
    for name, weight in ours["weights"].items():
        assert torch.allclose(theirs["weights"][name].float(), weight, rtol=1e-3, atol=1e-6), name
    half = (ours["half"] - ours["logits"]).norm()
    assert (theirs["logits"] - ours["logits"]).norm() < 2 * half
