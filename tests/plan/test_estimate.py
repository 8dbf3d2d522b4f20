"""Estimates: the survey's Table 8, published sizes, and what trainings here measured."""

import pytest

from harness.plan.capacity import least_gpus, weight_bytes
from harness.plan.estimate import Scored, Size, training_cost
from harness.plan.table8 import (
    A800,
    GIB,
    LLAMA,
    PRINTED,
    SETTINGS,
    decoding_limit,
    full_gpus,
    planned,
    table8,
    tuning_hours,
)


@pytest.mark.parametrize(
    ("name", "published"), [("7B", 6.738e9), ("13B", 13.016e9), ("30B", 32.529e9), ("65B", 65.286e9)]
)
def test_parameters_are_those_of_the_released_models(name: str, published: float) -> None:
    assert LLAMA[name].parameters == pytest.approx(published, rel=1e-3)


def test_full_tuning_fits_where_the_survey_says_and_not_on_half_the_gpus() -> None:
    for row in table8():
        assert row["full_fits"], row
        assert not row["half_fits"], row


def test_the_lora_batches_of_the_survey_lie_between_with_and_without_recomputation() -> None:
    for row in table8():
        assert row["lora_batch"][False] < row["lora_printed"] < row["lora_batch"][True], row
        assert any("recompute" in note for note in row["notes"])


def test_least_gpus_for_inference_agree_9_times_exactly_and_12_times_as_powers_of_two() -> None:
    exact = powers = 0
    for row in table8():
        exact += sum(a == b for a, b in zip(row["inference_exact"], row["inference_printed"], strict=True))
        powers += sum(
            a == b for a, b in zip(row["inference_power_of_two"], row["inference_printed"], strict=True)
        )
        differing = sum(a != b for a, b in zip(row["inference_exact"], row["inference_printed"], strict=True))
        assert sum("GPUs hold the weights" in note for note in row["notes"]) == differing
    assert (exact, powers) == (9, 12)


def test_counts_of_gpus_round_up() -> None:
    assert [least_gpus(n * GIB, memory=24 * GIB) for n in (1, 24, 25, 121.6)] == [1, 1, 2, 6]
    assert least_gpus(121.6 * GIB, memory=24 * GIB, power_of_two=True) == 8


def test_estimated_memory_is_near_the_measured_peak_of_a_training() -> None:
    """A pretraining measured here: 16 sequences of 256 tokens in fp32, 922,752 weights, 240,413,927 bytes."""
    size = Size(vocab_size=1024, dim=128, num_layers=4, num_heads=4, head_dim=32, ffn_dim=344, tied=True)
    assert size.parameters == pytest.approx(922752, rel=0.01)
    cost = training_cost(
        size, tokens=16384, sequence_length=256, padded_tokens=16 * 256, scored=Scored(chunked=True)
    )
    assert cost.memory == pytest.approx(240413927, rel=0.15)
    assert cost.flops == 116366770176, "training counts by the same convention"


def test_the_planned_table_has_the_surveys_columns_and_bounds_what_it_printed() -> None:
    heads, rows, notes = planned()
    assert [row[0] for row in rows] == ["7B", "13B", "30B", "65B"]
    assert len(heads) == 13
    assert all(len(row) == len(heads) for row in rows)
    assert len(notes) > 2
    for name, size in LLAMA.items():
        shown = PRINTED[name]
        assert full_gpus(size, batch=shown.full_batch) == shown.full_gpus
        assert tuning_hours(size, gpus=shown.full_gpus) < shown.full_hours
        assert tuning_hours(size, gpus=1, adapters=0) < shown.lora_hours
        for (memory, bits), speed in zip(SETTINGS, shown.speed, strict=True):
            assert decoding_limit(size, memory=memory, bits=bits) > speed


def test_limits_by_hand() -> None:
    """LLaMA 7B in 16 bits is 13.48 GB: an A800 reads it 151 times a second."""
    assert decoding_limit(LLAMA["7B"], memory=A800, bits=16) == pytest.approx(2039 / 13.477, rel=1e-3)
    # 79.9 M tokens x (6 x 6.607e9 weights multiplied + 12 x 32 layers x 4096 x 512) over 2 x 312e12 FLOP/s
    by_hand = 79.875e6 * (6 * 6.607e9 + 12 * 32 * 4096 * 512) / 624e12 / 3600
    assert tuning_hours(LLAMA["7B"], gpus=2) == pytest.approx(by_hand, rel=2e-3)


@pytest.mark.parametrize(
    ("name", "printed"), [("7B", {16: 12.58, 8: 6.65, 4: 3.94}), ("13B", {16: 24.40, 8: 12.53, 4: 7.34})]
)
def test_the_memory_column_of_the_surveys_table_10_is_met_within_2_percent(
    name: str, printed: dict[int, float]
) -> None:
    for bits, gib in printed.items():
        assert weight_bytes(LLAMA[name], bits=bits) / GIB == pytest.approx(gib, rel=0.02)
