"""What each process of a training takes, against counts by hand and what BLOOM and LLaMA published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.axes.parallelism import Spread
from harness.commands.plan import spread_lines
from harness.plan.costs import Costs
from harness.plan.estimate import Scored, Size
from harness.plan.make import make_plan
from harness.plan.spread import Share, share
from harness.plan.table8 import LLAMA
from harness.registry.known import registry
from harness.store import Store

BLOOM = Size(
    vocab_size=250880, dim=14336, num_layers=70, num_heads=112, ffn_dim=57344, gated=False, tied=True
)
ALL = frozenset({"weights", "gradients", "states"})
GIB, TIB = 2**30, 2**40


def bloom(**changed: Any) -> Share:
    """BLOOM's grid and batch (Le Scao et al. 2022, arXiv:2211.05100, section 3.4 and table 3)."""
    grid = {"data": 8, "pipeline": 12, "tensor": 4, "splits": frozenset({"states"}), "micro_batches": 128}
    return share(
        BLOOM,
        Spread(**{**grid, **changed}),
        batch_size=2048,
        micro_batch_size=None,
        sequence_length=2048,
        mixed=True,
        recompute=True,
    )


def test_blooms_checkpoints_have_the_published_sizes() -> None:
    """329 GB of bf16 weights, 2.3 TB with optimizer state: bf16, and a copy and two moments in fp32."""
    assert 2 * BLOOM.parameters / GIB == pytest.approx(329, rel=0.005)
    assert (2 + 12) * BLOOM.parameters / TIB == pytest.approx(2.3, rel=0.03)


def test_bloom_fits_its_384_gpus_of_80_gb_and_half_of_them_would_not_do() -> None:
    found = bloom()
    assert found.processes == 384
    assert found.memory < 80e9
    assert bloom(pipeline=6, data=8).memory > 80e9


def test_blooms_bubble_is_11_of_128() -> None:
    """(p - 1) / m with 2,048 sequences in pieces of two over eight replicas."""
    assert bloom().bubble == pytest.approx(11 / 128)


def test_what_heads_and_hidden_units_keep_is_split_and_norms_and_sums_are_not() -> None:
    """Of a GPT block's values, as Korthikanti et al. 2022 (arXiv:2205.05198, equation 2) part them."""
    whole, quarter = (
        BLOOM.layer_activations(2048, element=2, autocast=True, parts=parts) for parts in (1, 4)
    )
    norms_and_sums, heads, hidden = 2 * 6 * 14336 + 16 * 14336, 2 * 4 * 14336, 2 * 2 * 57344
    assert whole == norms_and_sums + heads + hidden
    assert quarter == norms_and_sums + (heads + hidden) / 4


def test_gpipe_keeps_every_piece_and_1f1b_as_many_as_there_are_stages() -> None:
    """Narayanan et al. 2020 (arXiv:2006.09503): m pieces' activations, or min(p, m)."""
    options: Any = {"micro_batches": 8, "tensor": 1, "data": 1, "pipeline": 2}
    held = {
        (alternates, length): share(
            BLOOM,
            Spread(**options, alternates=alternates),
            batch_size=8,
            micro_batch_size=None,
            sequence_length=length,
            mixed=False,
            recompute=False,
            scored=Scored(share=0.0, chunked=True),
        ).memory
        for alternates in (False, True)
        for length in (1, 2)
    }
    a_token = {alternates: held[alternates, 2] - held[alternates, 1] for alternates in (False, True)}
    assert a_token[False] == pytest.approx(8 / 2 * a_token[True])


def test_blooms_communication_by_hand() -> None:
    found = bloom()
    weights = 6 * 12 * 14336**2 / 4 + 250880 * 14336 + 13 * 14336
    assert found.along_data == pytest.approx(2 * 7 / 8 * 4 * weights, rel=1e-6)
    piece = 2 * 2048 * 14336 * 2  # bytes of two sequences' hidden states in bf16
    assert found.along_pipeline == 2 * 128 * piece
    # 8 b s h (t - 1) / t elements a layer, half as much again where the forward pass is computed twice
    assert found.along_tensor == pytest.approx(1.5 * 8 * (3 / 4) * piece * 6 * 128, rel=1e-9)


def test_zero_3_sends_half_as_much_again_and_keeps_a_part_of_everything() -> None:
    """Section 7 of arXiv:1910.02054: 1.5 times the volume of data parallelism."""
    base = {"batch_size": 64, "micro_batch_size": 1, "sequence_length": 128, "mixed": False}
    options: Any = base | {"recompute": False}
    size = LLAMA["7B"]
    plain, zero1, zero2, zero3 = (
        share(size, Spread(data=64, splits=frozenset(splits)), **options)
        for splits in ((), ("states",), ("states", "gradients"), ALL)
    )
    assert plain.along_data == zero1.along_data == zero2.along_data
    assert zero3.along_data == 1.5 * plain.along_data
    assert plain.memory - zero1.memory == pytest.approx(8 * size.parameters * 63 / 64, rel=0.02)
    assert zero1.memory - zero2.memory == pytest.approx(4 * size.parameters * 63 / 64, rel=0.02)
    assert zero3.memory < zero2.memory / 3


def test_one_process_takes_what_the_formula_of_one_says() -> None:
    from harness.plan.estimate import training_cost

    options: Any = {"sequence_length": 512, "mixed": True, "recompute": False}
    size = LLAMA["7B"]
    alone = share(size, Spread(), batch_size=4, micro_batch_size=1, **options)
    planned = training_cost(size, tokens=0, padded_tokens=512, accumulates=True, **options).memory
    assert alone.memory == pytest.approx(planned, rel=1e-3)
    assert alone.along_data == alone.along_tensor == alone.along_pipeline == alone.bubble == 0


def test_llama_65b_took_the_published_gpu_hours_at_the_published_speed() -> None:
    """380 tokens/s a GPU, 1.4 T tokens: 1,022,362 GPU hours (arXiv:2302.13971, section 2.4 and table 15)."""
    flops = LLAMA["65B"].flops_per_token(2048)
    assert pytest.approx(1_022_362, rel=0.002) == 1.4e12 / 380 / 3600
    assert 0.45 < 380 * flops / 312e12 < 0.55


@pytest.mark.parametrize("name", sorted(registry().methods("parallelism")))
def test_every_grid_has_as_many_places_as_processes(name: str) -> None:
    method: Any = registry().get("parallelism", name)
    number = 1 if name == "single" else 4
    spread = method(method.Config(num_processes=number)).spread()
    assert spread.data * spread.pipeline * spread.tensor == number


def test_the_plan_says_what_each_process_takes(tmp_path: Path) -> None:
    grid = [
        "parallelism=mesh",
        "parallelism.num_processes=8",
        "parallelism.tensor=2",
        "parallelism.pipeline=2",
    ]
    arguments = [*grid, "model.tie_embeddings=false", "pretrain.batch_size=8", "seed=0"]
    plan = make_plan(arguments, store=Store(tmp_path)).first
    lines = spread_lines(plan, Costs(plan))
    assert any("8 processes (2 data x 2 pipeline x 2 tensor)" in line for line in lines), lines
    assert any("a pipeline waits 25.0% of the time it works" in line for line in lines)
