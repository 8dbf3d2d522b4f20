"""A record: what one cell yielded, as reports read it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.report.scored import Scored
from harness.store.records import set_aside

log = logging.getLogger("harness.report")


@dataclass(eq=False, kw_only=True)
class Record:
    """What one cell yielded: outcome, metrics, measured facts, provenance, samples."""

    data: Mapping[str, Any]
    """The content of record.json."""
    folder: Path | None = None
    """Where it lies, None when it comes from a compact file."""
    embedded: Mapping[str, Scored] = field(default_factory=dict)
    """Samples of a compact file, by `<evaluator>.<task>`."""
    _cache: dict[str, Scored | None] = field(default_factory=dict, repr=False)

    @property
    def cell(self) -> str:
        return str(self.data["cell"])

    @cached_property
    def levels(self) -> dict[str, str]:
        """Factor -> level, both as text."""
        return {str(k): label(v) for k, v in self.data["levels"].items()}

    @property
    def seed(self) -> int:
        return int(self.data["seed"])

    @property
    def place(self) -> tuple[Any, ...]:
        """Its configuration and seed; one record has it in a table."""
        return tuple(sorted(self.levels.items())), self.seed

    @property
    def where(self) -> str:
        """Its place in words."""
        return ", ".join([*(f"{f} = {v}" for f, v in self.levels.items()), f"seed {self.seed}"])

    @cached_property
    def status(self) -> str:
        return str(self.data["outcome"]["status"])

    @property
    def reason(self) -> str:
        """Why there is no number, in one line; empty when there is."""
        outcome = self.data["outcome"]
        stage = f" in {outcome['stage']}" if outcome.get("stage") else ""
        step = f" at step {outcome['step']}" if outcome.get("step") is not None else ""
        text = " ".join(str(outcome.get("reason") or "").split())
        return f"{self.status}{stage}{step}" + (f": {text}" if text else "")

    @cached_property
    def leaves(self) -> tuple[tuple[str, Any], ...]:
        """The config as dotted paths and values."""
        return tuple(flatten(self.data["config"]))

    @property
    def keys(self) -> tuple[str, ...]:
        """Of its stages, in order."""
        return tuple(str(stage.get("key", "")) for stage in self.data["stages"])

    @property
    def finished(self) -> str:
        return str(self.data.get("provenance", {}).get("finished", ""))

    @property
    def experiment(self) -> Mapping[str, Any]:
        value = self.data["experiment"]
        assert isinstance(value, Mapping)
        return value

    @property
    def sample_names(self) -> list[str]:
        if self.folder is None:
            return sorted(self.embedded)
        return sorted(path.stem for path in (self.folder / "samples").glob("*.parquet"))

    def samples(self, name: str) -> Scored | None:
        """Items of `<evaluator>.<task>`, read once; None where not kept, or damaged, which is named and set
        aside.
        """
        if name in self.embedded:
            return self.embedded[name]
        if self.folder is None:
            return None
        if name not in self._cache:
            self._cache[name] = self._read_samples(self.folder / "samples" / f"{name}.parquet")
        return self._cache[name]

    def in_memory(self) -> Record:
        """The same without a folder.

        Raises: DataError where its samples are damaged
        """
        assert self.folder is not None
        files = {name: self.folder / "samples" / f"{name}.parquet" for name in self.sample_names}
        return Record(data=self.data, embedded={name: Scored.read(file) for name, file in files.items()})

    def _read_samples(self, path: Path) -> Scored | None:
        try:
            return Scored.read(path) if path.exists() else None
        except DataError as error:
            log.warning("%s (%s)", error, set_aside(path.parents[4], path))
            return None


def label(level: object) -> str:
    """A level as it is printed and compared: `none` for null, `true`, 8, 0.1, `lora`."""
    if level is None:
        return "none"
    if isinstance(level, bool):
        return str(level).lower()
    if isinstance(level, Mapping | list | tuple):
        return json.dumps(level, sort_keys=True)
    return str(level)


def visible(text: str) -> str:
    """A label as a reader tells it from others: quoted where it is empty or holds what is not seen."""
    if text and text == text.strip() and text.isprintable():
        return text
    return json.dumps(text, ensure_ascii=not text.isprintable())


def flatten(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Leaves of a config as dotted paths; a list is a leaf."""
    if not (isinstance(node, dict) and node):
        yield path, node
        return
    # One generator for all levels: one a level hands every leaf up through all those above it.
    open_nodes = [(f"{path}." if path else "", iter(node.items()))]
    while open_nodes:
        prefix, items = open_nodes[-1]
        for key, value in items:
            if isinstance(value, dict) and value:
                open_nodes.append((f"{prefix}{key}.", iter(value.items())))
                break
            yield f"{prefix}{key}", value
        else:
            open_nodes.pop()
