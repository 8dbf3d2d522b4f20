"""The survey's Table 8, compute to tune and run LLaMA 7B to 65B, out of the planner's formulas.

Paper: Zhao et al. 2023, arXiv:2303.18223v13, section 5.1.5
Differs: the source states neither whether the LoRA rows recompute activations nor how long the padded
sequences are; both bounds are shown for full sequences of 512 tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.sweep.estimate import USABLE, Size, least_gpus, lora_batch, weight_bytes, zero3_bytes

GIB = 2**30
A800, RTX3090 = 80 * GIB, 24 * GIB
SEQUENCE_LENGTH = 512
LORA_RANK = 16
LLAMA = {
    "7B": Size(vocab_size=32000, dim=4096, num_layers=32, num_heads=32, ffn_dim=11008),
    "13B": Size(vocab_size=32000, dim=5120, num_layers=40, num_heads=40, ffn_dim=13824),
    "30B": Size(vocab_size=32000, dim=6656, num_layers=60, num_heads=52, ffn_dim=17920),
    "65B": Size(vocab_size=32000, dim=8192, num_layers=80, num_heads=64, ffn_dim=22016),
}


@dataclass(frozen=True)
class Row:
    """What the survey printed for one model."""

    full_gpus: int
    full_batch: int
    lora_batch: int
    inference: tuple[int, int, int]
    """GPUs for A800 16-bit, 3090 16-bit, 3090 8-bit."""


PRINTED = {
    "7B": Row(2, 8, 80, (1, 1, 1)),
    "13B": Row(4, 8, 48, (1, 2, 1)),
    "30B": Row(8, 4, 24, (1, 4, 2)),
    "65B": Row(16, 2, 4, (2, 8, 4)),
}
SETTINGS = ((A800, 16), (RTX3090, 16), (RTX3090, 8))


def table8() -> list[dict[str, Any]]:
    """One row a model: what the formulas give beside what was printed, with each difference explained."""
    return [_row(name, size, PRINTED[name]) for name, size in LLAMA.items()]


def _row(name: str, size: Size, printed: Row) -> dict[str, Any]:
    options: dict[str, Any] = {"batch": printed.full_batch, "sequence_length": SEQUENCE_LENGTH}
    needed = {n: zero3_bytes(size, gpus=n, **options) for n in (printed.full_gpus, printed.full_gpus // 2)}
    bounds = {
        recompute: lora_batch(
            size, rank=LORA_RANK, memory=A800, sequence_length=SEQUENCE_LENGTH, recompute=recompute
        )
        for recompute in (False, True)
    }
    weights = [(weight_bytes(size, bits=bits), memory) for memory, bits in SETTINGS]
    exact = tuple(least_gpus(needed_bytes, memory=memory) for needed_bytes, memory in weights)
    powers = tuple(least_gpus(b, memory=memory, power_of_two=True) for b, memory in weights)
    return {
        "model": name,
        "parameters": size.parameters,
        "full_gpus": printed.full_gpus,
        "full_fits": needed[printed.full_gpus] <= A800 * USABLE,
        "half_fits": needed[printed.full_gpus // 2] <= A800 * USABLE,
        "full_gib": {n: value / GIB for n, value in needed.items()},
        "lora_batch": bounds,
        "lora_printed": printed.lora_batch,
        "inference_exact": exact,
        "inference_power_of_two": powers,
        "inference_printed": printed.inference,
        "notes": _notes(printed, bounds, exact, powers),
    }


def _notes(
    printed: Row, bounds: dict[bool, int], exact: tuple[int, ...], powers: tuple[int, ...]
) -> list[str]:
    """Why the formulas and the printed table differ where they do."""
    notes = []
    if not bounds[False] >= printed.lora_batch:
        notes.append(
            f"LoRA batch {printed.lora_batch} exceeds the {bounds[False]} full sequences that fit without "
            f"recomputation and lies below the {bounds[True]} with it: the authors recompute, or pad to the "
            "batch's longest answer (Alpaca's are far shorter than 512 tokens)"
        )
    for (memory, bits), least, power, shown in zip(SETTINGS, exact, powers, printed.inference, strict=True):
        if least != shown:
            device = "A800" if memory == A800 else "3090"
            why = (
                "a power of two, as tensor parallelism splits heads" if power == shown else "more than needed"
            )
            notes.append(
                f"{bits}-bit on {device}: {least} GPUs hold the weights, the table has {shown}: {why}"
            )
    return notes
