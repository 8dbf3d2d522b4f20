"""Packed linear layers against dequantize-then-matmul by bitsandbytes and torchao, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import pytest
import tiny_models as tiny
import torch
from bench import show
from torch import Tensor, nn
from torch.nn import functional as F

SHAPES = [(1024, 2048), (2048, 1024), (1024, 1024)]
ROWS = [1, 32, 256]
ROUNDS = 15


def packed(name: str, weight: Tensor, **options: object) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.clone())
    return tiny.choose("quantizer", name, **options).build().quantize(nn.Sequential(layer), None)[0]


def nf4_of_bitsandbytes(weight: Tensor) -> Callable[[Tensor], Tensor]:
    from bitsandbytes import functional as bnb

    data, state = bnb.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    return lambda x: F.linear(x, bnb.dequantize_4bit(data, state))


def int8_of_torchao(weight: Tensor, *, dynamic: bool) -> Callable[[Tensor], Tensor]:
    from torchao.quantization import (
        Int8DynamicActivationInt8WeightConfig,
        Int8WeightOnlyConfig,
        quantize_,
    )

    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    model[0].weight = nn.Parameter(weight.clone())
    quantize_(model, Int8DynamicActivationInt8WeightConfig() if dynamic else Int8WeightOnlyConfig())
    held = model[0].weight
    return model if dynamic else lambda x: F.linear(x, held.dequantize())


def group_int4_of_torchao(weight: Tensor) -> Callable[[Tensor], Tensor]:
    from torchao.quantization import IntxWeightOnlyConfig, quantize_
    from torchao.quantization.granularity import PerGroup

    model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False))
    model[0].weight = nn.Parameter(weight.clone())
    quantize_(model, IntxWeightOnlyConfig(weight_dtype=torch.int4, granularity=PerGroup(64)))
    held = model[0].weight
    return lambda x: F.linear(x, held.dequantize())


PAIRS: dict[str, tuple[Callable[[Tensor], nn.Module], Callable[[Tensor], Callable[[Tensor], Tensor]]]] = {
    "nf4 / bitsandbytes": (lambda w: packed("nf4", w), nf4_of_bitsandbytes),
    "rtn 4, groups of 64 / torchao": (
        lambda w: packed("rtn", w, bits=4, granularity="group", group_size=64),
        group_int4_of_torchao,
    ),
    "rtn 8 / torchao": (lambda w: packed("rtn", w, bits=8), lambda w: int8_of_torchao(w, dynamic=False)),
    "zeroquant / torchao, dequantized": (
        lambda w: packed("zeroquant", w),
        lambda w: int8_of_torchao(w, dynamic=False),
    ),
    "llm_int8 / torchao, dequantized": (
        lambda w: packed("llm_int8", w),
        lambda w: int8_of_torchao(w, dynamic=False),
    ),
}


def interleaved(ours: Callable[[Tensor], Tensor], theirs: Callable[[Tensor], Tensor], x: Tensor) -> float:
    """Least seconds of theirs over least seconds of ours, of calls made in turn."""
    seconds: dict[bool, list[float]] = {True: [], False: []}
    for round_ in range(2 * ROUNDS + 2):
        mine = round_ % 2 == 0
        start = time.perf_counter()
        (ours if mine else theirs)(x)
        if round_ > 1:  # the first call of each warms up
            seconds[mine].append(time.perf_counter() - start)
    return min(seconds[False]) / min(seconds[True])


NOISE = 0.9
"""A ratio this near to 1 is a tie on a machine that does other things too."""


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_a_packed_layer_is_not_slower(pair: str) -> None:
    torch.set_num_threads(1)
    make_ours, make_theirs = PAIRS[pair]
    found = {}
    with torch.inference_mode():
        for inputs, outputs in SHAPES:
            weight = torch.randn(outputs, inputs, generator=torch.Generator().manual_seed(0)) / inputs**0.5
            ours, theirs = make_ours(weight), make_theirs(weight)
            for rows in ROWS:
                x = torch.randn(rows, inputs, generator=torch.Generator().manual_seed(1))
                found[rows, inputs, outputs] = interleaved(ours, theirs, x)
    overall = median(found.values())
    table = [[f"{rows} x {inputs} -> {outputs}", ratio] for (rows, inputs, outputs), ratio in found.items()]
    show(f"Packed layers, {pair}", ["rows", "times as fast"], [*table, ["median", overall]])
    assert overall > NOISE
