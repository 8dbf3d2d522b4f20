"""Cells from a base composition by node replacement: Hydra composes each choice once, not each cell."""

from __future__ import annotations

from collections.abc import Sequence

from harness.compose import Cell, load
from harness.sweep.grammar import parse


class Assembler:
    """Composes cells that share a base, each the same as Hydra would compose it."""

    def __init__(self, base: Sequence[str]) -> None:
        self.base = tuple(base)

    def cell(self, overrides: Sequence[str]) -> Cell:
        """The cell of the base and `overrides`; an override of the same key replaces the base's.

        Raises: ConfigError, PluginError
        """
        added = parse(overrides)
        keys = {item.key for item in added}
        kept = [item for item in parse(self.base) if item.key not in keys]
        everything = tuple(text for item in (*kept, *added) for text in item.overrides())
        node, choices = load(everything)
        return Cell(node, overrides=everything, experiment=choices.get("experiment") or "")
