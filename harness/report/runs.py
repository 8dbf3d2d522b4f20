"""Which cells rest on one run: inside a seed, the tree of stages that configurations share.

Three quantized versions of one tuned model are no three replicates of tuning. Their differences are free of
that run's luck, and differences between tuned models are not averaged over it. So the tree of runs is the
nesting of a split-plot design.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

RESULTS = frozenset({"evaluation", "generations"})
"""Kinds of artifact that are no part of a model."""

Path = tuple[int, ...]
"""A configuration's place in the tree: a group's number at each level; the last is its own."""


@cache
def measuring() -> frozenset[str]:
    """Names of the stages that measure a model and make none, as they declare it."""
    from harness.registry import index as registry_index

    stages = registry_index.read()["stages"]  # the index: nothing is imported
    return frozenset(name for name, stage in stages.items() if stage["produces"] in RESULTS)


def training(record: Mapping[str, Any]) -> list[str]:
    """Stages of a record that took steps, in their order."""
    facts = record.get("facts", {})
    names = dict.fromkeys(str(s.get("stage")) for s in record.get("stages", ()))
    return [name for name in names if (facts.get(name) or {}).get("steps")]


def stage_keys(record: Mapping[str, Any]) -> list[str]:
    """Keys of the stages that made the model, in order."""
    return [str(s.get("key", "")) for s in record.get("stages", ()) if s.get("stage") not in measuring()]


def replicated(records: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the seeds of a configuration are different runs; where none is noted, they are."""
    runs = {tuple(str(s.get("key", "")) for s in record.get("stages", ())) for record in records}
    return len(runs) > 1 or runs == {()} or len(records) < 2


def tree(records: Sequence[Sequence[Mapping[str, Any]]]) -> list[Path]:
    """Paths of configurations, given each one's records by seed in the same order of seeds.

    Configurations stand in one group where they share the run of a stage in every seed that both have.
    """
    chains = [[stage_keys(record) for record in of_seed] for of_seed in records]
    depth = max((len(keys) for chain in chains for keys in chain), default=0)
    partition = [0] * len(chains)
    levels: list[list[int]] = []
    for stage in range(depth):
        numbers: dict[Any, int] = {}
        refined = []
        for own, chain, group in zip(range(len(chains)), chains, partition, strict=True):
            keys = tuple(keys[stage] if stage < len(keys) else None for keys in chain)
            # A configuration whose chain ends stands alone from there on.
            sign = (group, keys) if None not in keys and keys else (group, own)
            refined.append(numbers.setdefault(sign, len(numbers)))
        if len(numbers) > len(set(partition)):
            levels.append(refined)
        partition = refined
    leaves = list(range(len(chains)))
    if not levels or len(set(levels[-1])) < len(chains):
        levels.append(leaves)
    return [tuple(level[i] for level in levels) for i in leaves]
