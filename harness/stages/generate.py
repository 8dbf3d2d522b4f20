"""Stage generate: the cell's latest model answers prompts by the chosen decoding."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.compose.schema import stage_key
from harness.evaluation.prompts import PROMPT_FILES
from harness.hookspecs import hookimpl
from harness.method import Problem, check_counts
from harness.model.reach import no_room
from harness.paths import path_ref
from harness.stage import Stage, Work
from harness.stages.evaluate import load_subject

if TYPE_CHECKING:
    from torch import nn

    from harness.compose import Cell


class Generate(Stage):
    """Writes answers to `generations.parquet`: id, prompt, answer, target, tokens.

    Raises: TaskError where the window leaves no room for a prompt; DataError for a prompt file it cannot read
    """

    name = "generate"
    after = ("quantize",)
    axes = ("decoding",)
    needs = ("model",)
    may_need = ("documents",)
    produces = "generations"
    moves_facts = (("prompts", "counts"), ("max_prompts", "counts"), ("max_new_tokens", "counts"))

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        prompts: str = path_ref("instructions", suffixes=PROMPT_FILES, or_name=True)
        """A skill whose test items are asked, or a JSON (lines) file with `prompt` and maybe `answer`."""
        max_prompts: int = 64
        """Prompts asked, from the start."""
        max_new_tokens: int = 32
        """Longest answer, in tokens."""
        batch_size: int = 64
        """Prompts answered at once."""

        def __post_init__(self) -> None:
            check_counts(self, "generate", "max_prompts", "max_new_tokens", "batch_size")

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Answers that leave no room for a prompt, and prompts that cannot be read."""
        from harness.evaluation.prompts import misread

        config = cell.stage_config(stage)
        where = f"{stage}.max_new_tokens"
        yield from no_room(cell, meta_model, answer=config.max_new_tokens, where=where)
        yield from misread(config.prompts, limit=config.max_prompts, where=f"{stage_key(stage)}.prompts")

    def run(self, work: Work) -> dict[str, Any]:
        import pandas as pd

        from harness.evaluation.answers import answer
        from harness.evaluation.prompts import read_items

        config: Generate.Config = work.config
        subject = load_subject(work, work.inputs["model"])
        items = read_items(config.prompts, limit=config.max_prompts)
        start = time.perf_counter()
        answers = answer(
            subject,
            [item.prompt for item in items],
            max_new_tokens=config.max_new_tokens,
            batch_size=config.batch_size,
        )
        seconds = time.perf_counter() - start
        sizes = [len(tokens) for tokens in answers.tokens]
        rows = {
            "id": [item.id for item in items],
            "prompt": [item.prompt for item in items],
            "answer": answers.texts,
            "target": [item.answer for item in items],
            "tokens": sizes,
        }
        pd.DataFrame(rows).to_parquet(work.out / "generations.parquet", index=False)
        return {
            "prompts": len(items),
            "tokens": sum(sizes),
            "tokens_per_second": sum(sizes) / seconds,
            "truncated_prompts": answers.truncated,
        }


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Generate]
