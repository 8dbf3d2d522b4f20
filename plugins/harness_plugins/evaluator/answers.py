"""Answers: how many bits the model needs for a byte of right answers to prompts that it was not tuned on."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from harness import (
    PROMPT_FILES,
    CellView,
    Choice,
    ConfigError,
    DataError,
    Evaluation,
    Evaluator,
    HarnessError,
    Item,
    LikelihoodScorer,
    Method,
    Problem,
    Subject,
    answer_request,
    check_counts,
    encode_plain,
    hidden_bytes,
    hookimpl,
    item_files,
    item_hashes,
    path_ref,
    ratio_metric,
    read_items,
)


class Answers(Evaluator):
    """The loss of instruction tuning on held-out prompts, over the bytes of the answers.

    Every byte counts alike, so that tokenizers can be compared; a chat model also pays for ending the answer.
    Units: bits per UTF-8 byte of the answers, 8 for each that no token says (escape coding); loss in nats per
        token, not comparable across tokenizers
    Error: standard errors over prompts (ratio estimator)
    """

    name = "answers"
    draws = False
    on_validation = frozenset({"answer_bits_per_byte", "answer_loss"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        prompts: str = path_ref("instructions", suffixes=PROMPT_FILES, or_name=True)
        """A skill whose items are asked, or a JSON (lines) file with `prompt` and `answer`."""
        split: str = "test"
        """Prompts to score: `test`, or `validation` for tuning; rows of a file say theirs in `split`."""
        validation_share: float = 0.0
        """Share of a file's rows, by their hash, that are its validation split where they state none."""
        max_prompts: int = 128
        """Prompts scored, from the start."""
        batch_tokens: int = 1024
        """Padded tokens of one forward pass."""

        def __post_init__(self) -> None:
            check_counts(self, "evaluator.answers", "max_prompts", "batch_tokens")
            if self.split not in ("validation", "test"):
                raise ConfigError(f"evaluator.answers.split={self.split} must be validation or test")
            if not 0 <= self.validation_share < 1:
                raise ConfigError(
                    f"evaluator.answers.validation_share={self.validation_share} must be in [0, 1)"
                )

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(max_prompts=8)

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return ("answer_bits_per_byte", "answer_loss")

    @classmethod
    def num_items(cls, config: Any, task: str) -> int | None:
        return int(config.max_prompts)

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        return (item_files(config.prompts),) if config.prompts.endswith(PROMPT_FILES) else ()

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """A file that cannot be read, or a prompt without an answer."""
        try:
            cls(config).items()
        except (HarnessError, OSError) as error:
            yield Problem(where="evaluator.answers", message=str(error))

    def items(self) -> list[Item]:
        """The prompts with their answers.

        Raises: DataError naming the first without one
        """
        config = self.config
        found = read_items(
            config.prompts,
            limit=config.max_prompts,
            split=config.split,
            validation_share=config.validation_share,
        )
        for item in found:
            if not item.answer:
                raise DataError(f"{item.id} has no answer to be scored")
        return found

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        items = self.items()
        requests = [answer_request(subject, item.prompt, item.answer) for item in items]
        tokens = max(len(request.context) + len(request.continuation) for request in requests)
        scorer = LikelihoodScorer(
            model=subject.model,
            max_length=subject.max_length,
            batch_tokens=max(self.config.batch_tokens, min(tokens, subject.max_length)),
            on_progress=subject.on_progress,
        )
        losses = np.array([-score.total for score in scorer.score(requests)])
        sizes = np.array([len(item.answer.encode()) for item in items])
        counts = np.array([len(request.continuation) for request in requests])
        read = [encode_plain(subject.tokenizer, item.answer) for item in items]
        hidden = [hidden_bytes(subject.tokenizer, i.answer, ids) for i, ids in zip(items, read, strict=True)]
        bits = losses / math.log(2) + 8 * np.array(hidden)
        samples = pd.DataFrame(
            {
                "task": task,
                "doc_hash": item_hashes([item.prompt for item in items]),
                "prompt": [item.prompt for item in items],
                "target": [item.answer for item in items],
                "answer_bits_per_byte": bits / sizes,
                "answer_loss": losses / counts,
                "bytes": sizes,
                "tokens": counts,
            }
        )
        metrics = [
            ratio_metric(task, "answer_bits_per_byte", bits, sizes, unit="bits/byte"),
            ratio_metric(task, "answer_loss", losses, counts, unit="nats/token"),
        ]
        return Evaluation(metrics=metrics, samples=samples, facts=dict(scorer.facts))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Answers]
