"""What the artifacts of a store have measured, by what it depends on; the plan estimates with it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from harness.forms import misfit
from harness.store import Artifact, Store

LENGTH_AXES = (
    *("architecture", "objective", "curriculum", "instruction", "instruction_strategy"),
    *("feedback", "alignment"),
)
"""Axes that say how long a stage's sequences are, as far as `sequence_length` does not."""


@dataclass(kw_only=True)
class Known:
    """What the artifacts of a store have measured: medians by what they depend on.

    Units: seconds, bytes, FLOP/s; lengths are shares of a stage's `sequence_length`
    """

    fill: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Tokens that a sequence held, by `data_key`; of a pair, both of its sequences together."""
    width: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Positions, padding included, that a sequence took of the largest micro-batch; by `data_key`."""
    scored: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Share of these positions that are labelled; by `data_key`."""
    source: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Share of these positions that an encoder reads; by `data_key`."""
    bytes_per_token: dict[str, list[float]] = field(default_factory=dict)
    """By the tokenizer's key."""
    bytes_per_position: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Of text, where a window may become more positions than it has tokens; by `data_key`."""
    speed: dict[str, list[float]] = field(default_factory=dict)
    """By stage; `` for all."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By stage and part."""
    disk: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> Known:
        """Everything that the store's artifacts say."""
        known = cls()
        for key in store.all_keys():
            artifact = store.find(key)
            if artifact is not None:
                known.add(artifact, tokenizer=tokenizer_of(artifact.inputs, partial(_stored_inputs, store)))
        return known

    def add(self, artifact: Artifact, *, tokenizer: str) -> None:
        """Learn from one artifact, whose text was read with the tokenizer of that key."""
        # A third party's stage may mean something else by such a name.
        facts = {name: value for name, value in artifact.facts.items() if not misfit(value, float)}
        meta = artifact.meta
        title = f"{artifact.stage} {meta.get('part', '')}".strip()
        if meta.get("seconds"):
            self.seconds.setdefault(title, []).append(meta["seconds"])
        self.disk.setdefault(title, []).append(sum(f["size"] for f in meta.get("files", {}).values()))
        if artifact.kind == "tokenizer" and facts.get("bytes_per_token"):
            self.bytes_per_token.setdefault(artifact.key, []).append(facts["bytes_per_token"])
        if not facts.get("flops") or not facts.get("seconds"):
            return
        for stage in (artifact.stage, ""):
            self.speed.setdefault(stage, []).append(facts["flops"] / facts["seconds"])
        key = data_key(artifact.stage, meta.get("material", {}), tokenizer=tokenizer)
        full = facts.get("sequences", 0) * facts.get("sequence_length", 0)
        if facts.get("bytes") and facts.get("tokens"):
            self.bytes_per_position.setdefault(key, []).append(facts["bytes"] / facts["tokens"])
            if facts["tokens"] <= full:
                self.bytes_per_token.setdefault(f"trained {tokenizer}", []).append(
                    facts["bytes"] / facts["tokens"]
                )
        if full:
            self.fill.setdefault(key, []).append(facts["tokens"] / full)
            if facts.get("padded_tokens"):
                full = (facts["micro_batch_size"] or facts["batch_size"]) * facts["sequence_length"]
                self.width.setdefault(key, []).append(facts["padded_tokens"] / full)
            if facts.get("source_tokens"):
                self.source.setdefault(key, []).append(facts["source_tokens"] / facts["padded_tokens"])
            if facts.get("scored_tokens"):
                self.scored.setdefault(key, []).append(facts["scored_tokens"] / facts["padded_tokens"])


def data_key(stage: str, material: Mapping[str, Any], *, tokenizer: str) -> tuple[str, ...]:
    """What the length of sequences depends on: their bounds, the data, and who cuts them into tokens."""
    nodes, config = material.get("nodes", {}), material.get("config", {})
    bounds = {name: config.get(name) for name in ("sequence_length", "max_new_tokens")}
    data = {axis: nodes[axis] for axis in LENGTH_AXES if axis in nodes}
    return stage, tokenizer, json.dumps([bounds, data], sort_keys=True)


def tokenizer_of(inputs: Mapping[str, str], inputs_of: Callable[[str], Mapping[str, str] | None]) -> str:
    """Key of the tokenizer that a stage reads with: its own input, or that of the model it starts from."""
    while "tokenizer" not in inputs and "model" in inputs:
        made = inputs_of(inputs["model"])
        if made is None:
            return inputs["model"]  # from outside, and brings its own
        inputs = made
    return inputs.get("tokenizer", "")


def _stored_inputs(store: Store, key: str) -> Mapping[str, str] | None:
    found = store.find(key)
    return None if found is None else found.inputs


def bytes_per_token(typical: Mapping[int, float], vocab_size: int) -> float:
    """Of a tokenizer that nobody has measured: between the sizes that are known, linear in the log."""
    sizes = sorted(typical)
    size = min(max(vocab_size, sizes[0]), sizes[-1])
    right = next(s for s in sizes if s >= size)
    left = max(s for s in sizes if s <= size)
    if left == right:
        return typical[left]
    share = math.log(size / left) / math.log(right / left)
    return typical[left] + share * (typical[right] - typical[left])
