"""The survey's Table 8, compute to tune and run LLaMA 7B to 65B, out of the planner's formulas.

Paper: Zhao et al. 2023, arXiv:2303.18223v13, section 5.1.5
Differs: the source states neither whether the LoRA rows recompute activations nor how long the padded
sequences are; both bounds are shown for full sequences of 512 tokens
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness.plan.capacity import (
    USABLE,
    least_gpus,
    lora_batch,
    weight_bytes,
    zero3_batch,
    zero3_bytes,
)
from harness.plan.estimate import Size

GIB = 2**30
A800, RTX3090 = 80 * GIB, 24 * GIB
SEQUENCE_LENGTH = 512
TUNING_TOKENS = 52_002 * 3 * SEQUENCE_LENGTH
"""Three epochs of Alpaca's instructions, each padded to the full length."""
PEAK_FLOPS = 312e12
"""An A800's dense bf16 products, FLOP/s, from the vendor's data sheet."""
BANDWIDTH = {A800: 2039e9, RTX3090: 936e9}
"""Bytes that a GPU of that memory reads in a second, from the vendors' data sheets."""
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
    full_hours: float
    lora_hours: float
    speed: tuple[float, float, float]
    """Tokens/s in the same three settings."""


PRINTED = {
    "7B": Row(2, 8, 80, (1, 1, 1), 3.0, 3.5, (36.6, 24.3, 7.5)),
    "13B": Row(4, 8, 48, (1, 2, 1), 3.1, 5.1, (26.8, 9.9, 4.5)),
    "30B": Row(8, 4, 24, (1, 4, 2), 6.1, 14.3, (17.7, 3.8, 2.6)),
    "65B": Row(16, 2, 4, (2, 8, 4), 11.2, 60.6, (8.8, 2.0, 1.5)),
}
SETTINGS = ((A800, 16), (RTX3090, 16), (RTX3090, 8))


def table8() -> list[dict[str, Any]]:
    """One row a model: what the formulas give beside what was printed, with each difference explained."""
    return [_row(name, size, PRINTED[name]) for name, size in LLAMA.items()]


def planned() -> tuple[list[str], list[list[str]], list[str]]:
    """Headings, rows and notes in the layout of the printed table: what the formulas give, then (printed).

    Differs: times are for full sequences at the peak rate, speeds for reading all weights once a token, so
    both are what the hardware allows, not what the authors' programs reached
    """
    heads = ["LLaMA"]
    heads += [f"{work}: {what}" for work in ("full", "LoRA") for what in ("A800s", "batch", "hours")]
    devices = [f"{'A800' if memory == A800 else '3090'} {bits}-bit" for memory, bits in SETTINGS]
    heads += [f"{device}: {what}" for device in devices for what in ("GPUs", "tokens/s")]
    rows = []
    for row in table8():
        size, shown = LLAMA[row["model"]], PRINTED[row["model"]]
        gpus = full_gpus(size, batch=shown.full_batch)
        batch = zero3_batch(size, gpus=gpus, memory=A800, sequence_length=SEQUENCE_LENGTH)
        cells = [row["model"], f"{gpus} ({shown.full_gpus})", f"<= {batch} ({shown.full_batch})"]
        cells.append(f"{tuning_hours(size, gpus=gpus):.1f} ({shown.full_hours})")
        cells += ["1 (1)", f"<= {row['lora_batch'][True]} ({shown.lora_batch})"]
        cells.append(f"{tuning_hours(size, gpus=1, adapters=0):.1f} ({shown.lora_hours})")
        for place, (memory, bits) in enumerate(SETTINGS):
            cells.append(f"{row['inference_power_of_two'][place]} ({shown.inference[place]})")
            cells.append(f"<= {decoding_limit(size, memory=memory, bits=bits):.0f} ({shown.speed[place]})")
        rows.append(cells)
    notes = [
        "In brackets what the survey printed. GPUs: the least power of two that holds what the formulas "
        "count, for full tuning at the printed batch; LoRA over int8 weights is planned for one.",
        f"Hours: {TUNING_TOKENS / 1e6:.0f} M tokens (three epochs of 52,002 instructions, each padded to "
        f"{SEQUENCE_LENGTH} tokens) at {PEAK_FLOPS / 1e12:.0f} TFLOP/s a GPU, all of it used.",
        "Tokens/s: all weights read once a token, one GPU after the other.",
        *(f"{row['model']}: {note}" for row in table8() for note in row["notes"]),
    ]
    return heads, rows, notes


def full_gpus(size: Size, *, batch: int) -> int:
    """The least power of two of A800s on which full tuning fits with this batch on each."""
    gpus = 1
    while zero3_bytes(size, gpus=gpus, batch=batch, sequence_length=SEQUENCE_LENGTH) > A800 * USABLE:
        gpus *= 2
    return gpus


def tuning_hours(size: Size, *, gpus: int, adapters: int | None = None) -> float:
    """Hours at the GPUs' peak rate for full sequences; `adapters` alone are trained, where given."""
    flops = TUNING_TOKENS * size.flops_per_token(SEQUENCE_LENGTH, adapters=adapters)
    return flops / (PEAK_FLOPS * gpus) / 3600


def decoding_limit(size: Size, *, memory: int, bits: int) -> float:
    """Tokens/s that the memory's bandwidth allows one sequence, the layers computed one after the other."""
    return BANDWIDTH[memory] / weight_bytes(size, bits=bits)


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
