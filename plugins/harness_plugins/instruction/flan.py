"""Task-formatted instances as FLAN, P3 and T0 publish them."""

from collections.abc import Iterator
from typing import Any

from harness import DataError, Method, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader, pair, text_of

FIELDS = (
    ("inputs", "targets"),
    ("inputs_pretokenized", "targets_pretokenized"),
    ("input", "target"),
    ("prompt", "completion"),
    ("prompt", "response"),
)
TASKS = ("task", "task_name", "task_source", "template_name", "dataset")


class Flan(Reader):
    """JSON Lines of prompt and target under any of the published names; the task is the source.

    Paper: Longpre et al. 2023, arXiv:2301.13688 (FLAN); Sanh et al. 2021, arXiv:2110.08207 (P3, T0)
    """

    name = "flan"
    sample_name = "sample.jsonl"
    sample = (
        '{"inputs": "Is it sunny? OPTIONS: - yes - no", "targets": "yes", "task_name": "weather"}\n'
        '{"inputs_pretokenized": "Sum up: It rained.", "targets_pretokenized": "Rain", "task": "sum"}\n'
        '{"prompt": "Answer: 1 + 1", "completion": " 2", "task": "add"}\n'
    )

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            found = next(((p, a) for p, a in FIELDS if p in row and a in row), None)
            if found is None:
                names = ", ".join(f"{p}/{a}" for p, a in FIELDS)
                raise DataError(f"{row['#']}: none of the pairs {names}, only {sorted(set(row) - {'#'})}")
            task = next((str(row[name]) for name in TASKS if row.get(name)), "flan")
            yield task, pair(text_of(row, found[0]), text_of(row, found[1]))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Flan]
