"""The real gptqmodel in its own interpreter: `make test-gptqmodel` sets GPTQMODEL_PYTHON to it."""

from __future__ import annotations

import os

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer._gptq_format import GPTQFormatLinear

from harness import Calibration

PYTHON = os.environ.get("GPTQMODEL_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="`make test-gptqmodel` gives the interpreter")


def test_a_whole_model_goes_out_and_comes_back() -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(3, tiny.VOCABULARY, (16, 64), generator=generator)
    method = tiny.choose("quantizer", "gptqmodel", python=PYTHON, group_size=32).build()
    model = method.quantize(tiny.llama(), Calibration(batches_BT=[rows], sha256=""))
    layers = {n: m for n, m in model.named_modules() if isinstance(m, GPTQFormatLinear)}
    assert len(layers) == 14
    ids = torch.randint(3, tiny.VOCABULARY, (4, 32), generator=generator)
    with torch.no_grad():
        full, packed = tiny.llama()(input_ids=ids).logits, model(input_ids=ids).logits
        plain = tiny.choose("quantizer", "rtn", bits=4).build().quantize(tiny.llama(), None)
        rounded = plain(input_ids=ids).logits
    assert (packed - full).norm() < 1.5 * (rounded - full).norm()
