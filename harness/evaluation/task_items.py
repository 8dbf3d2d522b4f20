"""Test items of lm-eval's tasks as text, for decontamination."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.axes.corpus import Document, Split
from harness.data.item_texts import ItemTexts, strings
from harness.evaluation.lm_tasks import load_task, task_files
from harness.method import Choice
from harness.paths import path_ref


class TaskItems(ItemTexts):
    """Every text in the items that tasks are measured on, whatever limit they are measured with.

    Raises: TaskError where a task does not exist or its data cannot be had
    """

    name = "task_items"

    @dataclass(frozen=True, kw_only=True)
    class Config(ItemTexts.Config):
        tasks: list[str] = field(default_factory=list)
        """Tasks or groups by name."""
        include_path: str = path_ref(folder=True)
        """Folder with task YAML of one's own."""
        data_files: dict[str, Any] = path_ref(dict)
        """Task -> {split: file} in place of its data set."""
        trust: bool = False
        """Whether YAML may run code."""

    config: Config

    @classmethod
    def reads(cls, config: Any) -> dict[str, Path]:
        found: dict[str, Path] = {}
        for task in config.tasks:
            if task not in config.data_files:
                found |= task_files(task, include_path=config.include_path)
        return found

    def texts(self, documents: Callable[[Split], Iterator[Document]]) -> Iterator[str]:
        from harness.evaluation.lm_run import seeded

        for name in self.config.tasks:
            with seeded():
                loaded: Mapping[str, Any] = load_task(
                    name,
                    include_path=self.config.include_path,
                    data_files=self.config.data_files.get(name),
                    trust=self.config.trust,
                )
            for task in loaded["tasks"].values():
                for row in task.eval_docs:
                    yield from strings(row)


def task_items(**options: Any) -> Choice:
    """For an evaluator of tasks; the options are those of `TaskItems`."""
    return Choice(axis="item_texts", method=TaskItems, config=TaskItems.Config(**options))
