"""Quantizers at 4, 3 and 2 bits on a real model beside the field's: quality, processor seconds, memory.

The model is the one that `harness fetch smollm2_135m` brings, moved off its file's grid by half a step, or
the Hugging Face directory of a Llama that REAL_MODEL names; the text is Python's language reference, or the
file that REAL_TEXT names: scored at its beginning, calibrated on from its second half. GPTQMODEL_PYTHON adds
that library's own row. Groups of 64 inputs share a scale, but in NF4 (64 weights) and GGUF (32). Memory is
the peak of tensors, the model included; of gptqmodel, a process of its own, all that it had resident.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny_models as tiny
import torch
from bench import show
from llm_awq import llm_awq
from torch import Tensor

from harness import Calibration, PeakTracker, linear_layers, replace_module, weight_matrix
from harness.data.tokenization import prefix_token
from harness.model.gguf import dequantized
from harness.stages.dither import Dither, grid_noise

MODEL, TEXT = os.environ.get("REAL_MODEL", ""), os.environ.get("REAL_TEXT", "")
PYTHON = os.environ.get("GPTQMODEL_PYTHON", "")
WINDOWS, LENGTH = 4, 512
SEQUENCES, HELD_OUT, CALIBRATED = 32, 8, 128
GROUPED: dict[str, Any] = {"granularity": "group", "group_size": 64}
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


def bitsandbytes(model: Any, calibration: Calibration) -> Any:
    """NF4 by the library's own layers."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    for name, layer in linear_layers(model).items():
        weight_OI = weight_matrix(layer)
        shape = {"input_features": weight_OI.shape[1], "output_features": weight_OI.shape[0]}
        new = Linear4bit(**shape, bias=False, compute_dtype=torch.float32, quant_type="nf4")
        new.weight = Params4bit(
            weight_OI.clone(), quant_type="nf4", blocksize=64, compress_statistics=False, module=new
        )
        new.bias = layer.bias
        new.support_avx512bf16_for_cpu = False  # its fused product computes in bfloat16
        replace_module(model, name, new.to("cpu"))
    return model


def methods(bits: int) -> Iterator[tuple[str, Quantize]]:
    """Every row of the table."""
    for name in ("rtn", "hqq", "awq"):
        yield name, ours(name, bits=bits, **GROUPED)
    yield "awq, folded", ours("awq", bits=bits, fold=True, **GROUPED)
    yield "llm-awq's algorithm", lambda m, c: llm_awq(m, c.batches_BT, bits=bits, group=64)
    yield "gptq", ours("gptq", bits=bits, **GROUPED)
    yield "gptq, act_order", ours("gptq", bits=bits, act_order=True, **GROUPED)
    if PYTHON:
        yield "gptqmodel", ours("gptqmodel", bits=bits, group_size=64, python=PYTHON)
    yield "hadamard, gptq", ours("gptq", rotation="hadamard", bits=bits, **GROUPED)
    yield "torchao", ours("torchao", bits=bits, group_size=64)
    if bits == 4:
        yield "nf4", ours("nf4")
        yield "bitsandbytes nf4", bitsandbytes
        yield "gguf q4_0", ours("gguf", format="q4_0")
        yield "gguf q4_1", ours("gguf", format="q4_1")


@pytest.fixture(scope="module")
def model_directory(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory of a real model that lies on no quantizer's grid."""
    if MODEL:
        return Path(MODEL)
    from transformers import AutoModelForCausalLM, AutoTokenizer

    root = tmp_path_factory.mktemp("model")
    plain = dequantized(request.getfixturevalue("smollm2"), root=root)
    model = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32)
    generator, noise = torch.Generator().manual_seed(0), Dither.Config(steps=0.5)
    for _, layer in sorted(linear_layers(model).items()):
        weight_OI = weight_matrix(layer)
        weight_OI += grid_noise(weight_OI, config=noise, generator=generator)
    model.save_pretrained(root / "dithered")
    AutoTokenizer.from_pretrained(plain).save_pretrained(root / "dithered")
    return root / "dithered"


def load(directory: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def text() -> str:
    """What is scored and calibrated on."""
    if TEXT:
        return Path(TEXT).read_text()
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def processor_seconds() -> float:
    """Of this process and of those it started and waited for."""
    return sum(os.times()[:4])


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


@pytest.fixture(scope="module")
def given(model_directory: Path) -> tuple[Tensor, Calibration, list[Tensor]]:
    """Windows to score, calibration data, and what the model says in full precision."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_directory)
    ids = torch.tensor(tokenizer(text(), add_special_tokens=False)["input_ids"])
    first = prefix_token(tokenizer)
    scored = windows(ids, first, WINDOWS, LENGTH)
    seen = windows(ids[len(ids) // 2 :], first, SEQUENCES + HELD_OUT, CALIBRATED)
    calibration = Calibration(
        batches_BT=seen[:SEQUENCES].split(8), held_out_BT=seen[SEQUENCES:].split(8), sha256=""
    )
    full = load(model_directory)
    with torch.no_grad():
        reference = [full(input_ids=r[None]).logits[0, :-1].float().log_softmax(-1) for r in scored]
    return scored, calibration, reference


@pytest.mark.slow
@pytest.mark.timeout(0)  # of minutes on an idle machine, of hours beside other work
@pytest.mark.parametrize("bits", [4, 3, 2])
def test_quantizers_beside_the_fields(
    bits: int,
    model_directory: Path,
    given: tuple[Tensor, Calibration, list[Tensor]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    scored, calibration, reference = given
    found = {}
    with capsys.disabled():
        print(f"\n16 bit {'':20} perplexity {measure(load(model_directory), scored, reference)[0]:8.2f}")
        for name, quantize in methods(bits):
            model, start = load(model_directory), processor_seconds()
            with PeakTracker(model.parameters()) as peak:
                packed = quantize(model, calibration)
            seconds, mib = processor_seconds() - start, peak.peak / MIB
            if name == "gptqmodel":
                mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            row = Row(name, *measure(packed, scored, reference), seconds, mib)
            found[name] = row
            print(
                f"{bits} bit  {name:20} perplexity {row.perplexity:8.2f}  divergence "
                f"{row.divergence:.4f}  {row.seconds:6.1f} s  {row.peak_mib:6.0f} MiB",
                flush=True,
            )
        columns = ["quantizer", "perplexity", "KL divergence, nats", "processor s", "peak MiB"]
        show(f"Quantizers of {bits} bits on SmolLM2-135M", columns, [list(row) for row in found.values()])
    assert found["awq"].divergence < 1.05 * found["llm-awq's algorithm"].divergence
    assert found["awq"].seconds < 2 * found["llm-awq's algorithm"].seconds
    assert found["gptq"].divergence < found["rtn"].divergence
    if "gptqmodel" in found:
        assert found["gptq, act_order"].divergence < 1.05 * found["gptqmodel"].divergence
        assert found["gptq, act_order"].seconds < 2 * found["gptqmodel"].seconds
