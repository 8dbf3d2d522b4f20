"""Self-Instruct's formats: seed tasks with instances, and the finished prompt and completion."""

from collections.abc import Iterator
from typing import Any

from harness import DataError, Method, hookimpl
from harness_plugins.instruction._reader import Parsed, Reader, pair, text_of


class SelfInstruct(Reader):
    """JSON Lines of {instruction, instances: [{input, output}]} or of {prompt, completion}.

    Paper: Wang et al. 2022, arXiv:2212.10560
    """

    name = "self_instruct"
    sample_name = "sample.jsonl"
    sample = (
        '{"id": "seed_task_0", "name": "greet", "instruction": "Greet the person.", '
        '"instances": [{"input": "Ada", "output": "Hello, Ada!"}, {"input": "", "output": "Hello!"}], '
        '"is_classification": false}\n'
        '{"prompt": "Task: Count to three.\\nOutput:", "completion": " 1 2 3"}\n'
    )

    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        for row in rows:
            if "prompt" in row:
                yield "self_instruct", pair(text_of(row, "prompt"), text_of(row, "completion"))
                continue
            instances = row.get("instances")
            if not isinstance(instances, list) or not all(isinstance(one, dict) for one in instances):
                keys = sorted(set(row) - {"#"})
                raise DataError(
                    f"{row['#']}: neither 'instances' [{{input, output}}] nor 'prompt', only {keys}"
                )
            for instance in instances:
                given = instance.get("input") or ""
                prompt = text_of(row, "instruction") + (f"\n\n{given}" if given.strip() else "")
                yield "self_instruct", pair(prompt, instance.get("output") or "")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SelfInstruct]
