"""Models that decode together must speak of the same tokens; what the plan knows of that."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness.method import Choice, Problem
from harness.plan.graph import Graph
from harness.store.external import PATH

TOGETHER = "decoding"
"""The axis whose models read what the cell's own one says, token by token."""


@dataclass(frozen=True)
class Vocabulary:
    """What is known of a model's tokens before anything is trained."""

    key: str
    """Of the stage that makes the tokenizer, or of the directory it comes with."""
    choice: Choice | None = None
    """The method that trains it."""
    entries: Mapping[str, int] | None = None
    """All of them, where a directory holds them."""

    def differs(self, other: Vocabulary) -> str:
        """How two differ, as far as both are known; empty where they do not."""
        if self.key == other.key:
            return ""
        if self.entries is not None and other.entries is not None:
            return "" if self.entries == other.entries else f"{other} against {self}"
        own, theirs = ((each.name, each.size) for each in (self, other))
        unlike = own[1] != theirs[1] if "" in (own[0], theirs[0]) else own != theirs
        known = own[1] is not None and theirs[1] is not None
        return f"{other} against {self}" if known and unlike else ""

    @property
    def name(self) -> str:
        """The tokenizer's method; empty where it comes with a directory."""
        return "" if self.choice is None else self.choice.method.name

    @property
    def size(self) -> int | None:
        """Entries; None where they are not known."""
        if self.choice is not None:
            return int(getattr(self.choice.config, "vocab_size", 0)) or None
        return None if self.entries is None else len(self.entries)

    def __str__(self) -> str:
        return f"{self.size} entries" + (f" of tokenizer={self.name}" if self.name else "")


def foreign(graph: Graph, keys: Iterable[str]) -> Iterator[Problem]:
    """Models that a decoding names and that speak of other tokens than the cell's own."""
    seen: set[tuple[str, str]] = set()
    for key in keys:
        node = graph.nodes[key]
        for name, theirs in node.inputs.items():
            own = node.inputs.get("model", "")
            if not name.startswith(f"{TOGETHER}.") or (own, theirs) in seen:
                continue
            seen.add((own, theirs))
            how = vocabulary(graph, own).differs(vocabulary(graph, theirs))
            if how:
                message = f"its tokenizer is another one ({how}); name a model with the same tokenizer"
                yield Problem(where=name, message=message)


def vocabulary(graph: Graph, model: str) -> Vocabulary:
    """What is known of the tokens of the model with this key."""
    key = model
    while key in graph.nodes:
        node = graph.nodes[key]
        choice = node.choices.get("tokenizer")
        if isinstance(choice, Choice) and node.kind == "tokenizer":
            return Vocabulary(key, choice=choice)
        if "tokenizer" not in node.inputs and "model" not in node.inputs:
            return Vocabulary(key)
        key = node.inputs.get("tokenizer", node.inputs.get("model", ""))
    reference = graph.externals.get(key, "").removeprefix(PATH)
    return Vocabulary(key, entries=_entries(Path(reference).expanduser() / "tokenizer.json"))


def _entries(file: Path) -> Mapping[str, int] | None:
    """Tokens and their ids, by the file of the library `tokenizers`; None where it is not there."""
    try:
        return _read(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):
        return None


@lru_cache(maxsize=8)
def _read(file: Path, changed: int) -> Mapping[str, int]:
    """The same of a file as it was at a time, for all cells of a sweep."""
    stated: Any = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = stated["model"]["vocab"]
    if not isinstance(vocabulary, Mapping):  # unigram: a list of pieces with their scores
        vocabulary = {piece: index for index, (piece, _) in enumerate(vocabulary)}
    return {**vocabulary, **{token["content"]: token["id"] for token in stated.get("added_tokens", ())}}
