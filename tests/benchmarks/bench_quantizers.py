"""Quantizers at 4, 3 and 2 bits on a real model beside the field's: quality, seconds, memory.

REAL_MODEL names a Hugging Face directory of a Llama, REAL_TEXT a file of plain text; GPTQMODEL_PYTHON adds
the library's own row. Text is calibrated on from its second half and scored in its first. Groups of 64 inputs
share a scale, but in NF4 (64 weights) and GGUF (32).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_models as tiny
import torch
from llm_awq import llm_awq
from torch import Tensor

from harness import Calibration, PeakTracker
from harness.data.tokenization import prefix_token

MODEL, TEXT = os.environ.get("REAL_MODEL", ""), os.environ.get("REAL_TEXT", "")
WINDOWS, LENGTH = 6, 512
SEQUENCES, HELD_OUT, CALIBRATED = 32, 8, 128
GROUPED = {"granularity": "group", "group_size": 64}
MIB = 2**20
Quantize = Callable[[Any, Calibration], Any]


class Row(NamedTuple):
    """One method at one number of bits."""

    name: str
    perplexity: float
    divergence: float
    seconds: float
    peak_mib: float


def ours(name: str, *, rotation: str = "", **options: Any) -> Quantize:
    """A quantizer of the registry, on a rotated model where asked."""

    def quantize(model: Any, calibration: Calibration) -> Any:
        if rotation:
            tiny.choose("rotation", rotation).build().rotate(model)
        method = tiny.choose("quantizer", name, **options).build()
        return method.quantize(model, calibration if method.needs_calibration else None)

    return quantize


def methods(bits: int) -> Iterator[tuple[str, Quantize]]:
    """Every row of the table."""
    for name in ("rtn", "gptq", "awq", "hqq"):
        yield name, ours(name, bits=bits, **GROUPED)
    yield "gptq, act_order", ours("gptq", bits=bits, act_order=True, **GROUPED)
    yield "hadamard, gptq", ours("gptq", rotation="hadamard", bits=bits, **GROUPED)
    yield "llm-awq's algorithm", lambda m, c: llm_awq(m, c.batches_BT, bits=bits, group=64)
    yield "torchao", ours("torchao", bits=bits, group_size=64)
    python = os.environ.get("GPTQMODEL_PYTHON", "")
    if python:
        yield "gptqmodel", ours("gptqmodel", bits=bits, group_size=64, python=python)
    if bits == 4:
        yield "nf4 (bitsandbytes)", ours("nf4")
        yield "gguf q4_0", ours("gguf", format="q4_0")
        yield "gguf q4_1", ours("gguf", format="q4_1")


def load() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()


def windows(ids: Tensor, first: int, count: int, length: int) -> Tensor:
    """Rows of `length`, each behind the token that stands before a text."""
    rows = ids[: count * (length - 1)].view(count, length - 1)
    return torch.cat([torch.full((count, 1), first), rows], dim=1)


@torch.no_grad()
def measure(model: Any, rows: Tensor, reference: list[Tensor]) -> tuple[float, float]:
    """Perplexity, and mean KL divergence from the reference in nats."""
    nll = divergence = 0.0
    for row, exact in zip(rows, reference, strict=True):
        found = model(input_ids=row[None]).logits[0, :-1].float().log_softmax(-1)
        nll -= float(found.gather(-1, row[1:, None]).mean())
        divergence += float((exact.exp() * (exact - found)).sum(-1).mean())
    return float(torch.tensor(nll / len(rows)).exp()), divergence / len(rows)


@pytest.mark.slow
@pytest.mark.skipif(not (MODEL and TEXT), reason="REAL_MODEL and REAL_TEXT name a model and a text")
def test_quantizers_beside_the_fields(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    ids = torch.tensor(tokenizer(Path(TEXT).read_text(), add_special_tokens=False)["input_ids"])
    first = prefix_token(tokenizer)
    scored = windows(ids, first, WINDOWS, LENGTH)
    seen = windows(ids[len(ids) // 2 :], first, SEQUENCES + HELD_OUT, CALIBRATED)
    calibration = Calibration(
        batches_BT=seen[:SEQUENCES].split(8), held_out_BT=seen[SEQUENCES:].split(8), sha256=""
    )
    full = load()
    with torch.no_grad():
        reference = [full(input_ids=r[None]).logits[0, :-1].float().log_softmax(-1) for r in scored]
    plain = measure(full, scored, reference)[0]
    with capsys.disabled():
        print(f"\n{'16 bit':24} perplexity {plain:8.2f}")
        for bits in (4, 3, 2):
            found = {}
            for name, quantize in methods(bits):
                model, start = load(), time.perf_counter()
                with PeakTracker(model.parameters()) as peak:
                    packed = quantize(model, calibration)
                seconds = time.perf_counter() - start
                row = Row(name, *measure(packed, scored, reference), seconds, peak.peak / MIB)
                found[name] = row
                print(
                    f"{bits} bit {name:20} perplexity {row.perplexity:8.2f}  divergence "
                    f"{row.divergence:.4f}  {row.seconds:6.1f} s  {row.peak_mib:6.0f} MiB",
                    flush=True,
                )
            assert found["awq"].divergence < 1.05 * found["llm-awq's algorithm"].divergence
            assert found["gptq"].divergence < found["rtn"].divergence
            if "gptqmodel" in found:
                assert found["gptq, act_order"].divergence < 1.05 * found["gptqmodel"].divergence
