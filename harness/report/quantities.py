"""Which metrics a verdict is given on: quality; costs, speeds and repetitions get intervals alone."""

from __future__ import annotations

import re
from collections.abc import Collection

COSTS = (
    *("memory", "weights_in_memory", "peak_memory", "resident_memory", "optimizer_memory", "size_on_disk"),
    *("model_bytes", "checkpoint_bytes", "bits_per_weight", "cache"),
    *("seconds", "time_to_first_token", "flops_per_token", "flops", "gpu_hours", "trainable_parameters"),
)
"""Names of metrics and facts that are paid for quality."""
SPEEDS = ("tokens_per_second", "decode", "prefill", "mfu")
TIMES = ("seconds", "time_to_first_token", "gpu_hours")
"""Those of the costs that a clock measures."""
REPEATS = {
    "loss": ("bits_per_byte",),
    "byte_perplexity": ("bits_per_byte",),
    "word_perplexity": ("bits_per_byte",),
    "nats_per_character": ("bits_per_byte",),
    "perplexity": ("bits_per_byte", "loss", "nats_per_word"),
}
"""A metric that is another one (of several, any) in other units, where one evaluator gives both."""


def parts(metric: str) -> list[str]:
    """`evaluator.task.metric` at its dots; the point of a number (`depth=0.5`) is none."""
    return re.split(r"(?<!\d)\.|\.(?!\d)", metric)


def last_name(metric: str) -> str:
    return parts(metric)[-1]


def is_cost(metric: str) -> bool:
    return last_name(metric) in COSTS or last_name(metric) in SPEEDS


def is_time(metric: str) -> bool:
    """Whether it was read from a clock."""
    return last_name(metric) in (*SPEEDS, *TIMES)


def repeats(metric: str, known: Collection[str]) -> bool:
    """Whether another known metric of the same task is the same quantity in the preferred unit."""
    task, names = metric.rpartition(".")[0], REPEATS.get(last_name(metric), ())
    return any(f"{task}.{name}" in known for name in names)


def primary_by_default(metric: str, known: Collection[str]) -> bool:
    """A measured quality that nothing else states: what an experiment decides on if it declares nothing."""
    return not is_cost(metric) and not repeats(metric, known)
