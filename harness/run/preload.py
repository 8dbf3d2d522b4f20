"""What the fork server loads once, so that stages need not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from harness.compose import Cell
from harness.plan.files import flat
from harness.plan.node import Node
from harness.registry.known import registry

HEAVY = (
    *("torch", "transformers.modeling_utils", "transformers.models.auto.modeling_auto", "peft", "lm_eval"),
    *("pandas", "datasets", "tokenizers", "pyarrow.parquet"),
)
"""Modules worth loading once in the fork server, where a stage to run imports their library: of one that
loads its parts on demand, those that every model needs (they cost a stage 2.5 s)."""
OF_MODELS = ("torch", "transformers", "peft", "lm_eval")
"""Of these, what stages of text and tokens import by name alone, for code that they share."""


def preload(nodes: Iterable[Node]) -> list[str]:
    """Modules for the fork server: the stages, their methods, and heavy libraries that several import.

    What one stage alone needs it loads itself; libraries that work on models count for stages that have one.
    """
    nodes = list(nodes)
    users = Counter(
        library
        for node in nodes
        for library in node.libraries
        if library not in OF_MODELS or _has_model(node)
    )
    heavy = [name for name in HEAVY if users[name.partition(".")[0]] > 1]
    planned = [node for node in nodes if isinstance(node.cell, Cell)]
    plugins = ["harness.run.loaded"] if planned else []
    methods = sorted({choice.method.__module__ for node in planned for choice in flat(node.choices)})
    quiet = [module for module in methods if module not in registry().printing]  # the server's output is ours
    return ["harness.run.execute", "harness.plan.plan", *plugins, *quiet, *heavy]


def _has_model(node: Node) -> bool:
    """Whether a stage makes or reads a model."""
    return "model" in node.inputs or node.kind in ("model", "reward")
