"""Generation: quality and speed of a decoding method."""

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from harness import (
    PROMPT_FILES,
    CellView,
    Choice,
    Evaluation,
    Evaluator,
    IncompatibleError,
    Item,
    LikelihoodScorer,
    Method,
    Metric,
    Problem,
    ScoreRequest,
    Subject,
    answer,
    check_counts,
    hardware,
    held_out_documents,
    hookimpl,
    item_files,
    item_hashes,
    misread,
    path_ref,
    read_items,
    share_met,
)

BETTER = {
    "constraints_met": True,
    "distinct_1": True,
    "distinct_2": True,
    "distinct_2_per_text": True,
    "repetition_4": False,
    "loss": None,
    "length": None,
}
UNITS = {"loss": "nats/token", "length": "tokens"}


class Generation(Evaluator):
    """Texts drawn by the chosen decoding: how likely, how diverse, how repetitive, how right, how fast.

    Paper: Li et al. 2016, arXiv:1510.03055, section 5.2 (distinct-n: different n-grams of all texts over all
        their tokens); Welleck et al. 2020, arXiv:1908.04319 (repetition)
    Differs: `distinct_2_per_text` is the mean over texts of different bigrams over the text's bigrams
    Units: loss in nats per token of the text under the model itself; tokens/s on this machine
    """

    name = "generation"
    uses = frozenset({"decoding"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        prompts: str = path_ref("instructions", suffixes=PROMPT_FILES, or_name=True)
        """A skill whose test items are asked, `documents` (their beginnings), or a JSON (lines) file."""
        max_prompts: int = 32
        """Prompts, from the start."""
        max_new_tokens: int = 32
        """Longest text, in tokens."""
        prompt_bytes: int = 128
        """Bytes of a document that make its beginning."""
        batch_size: int = 32
        """Prompts continued at once."""

        def __post_init__(self) -> None:
            counts = ("max_prompts", "max_new_tokens", "prompt_bytes", "batch_size")
            check_counts(self, "evaluator.generation", *counts)

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(max_prompts=4, max_new_tokens=8)

    @classmethod
    def surroundings(cls, config: Any) -> dict[str, str]:
        return hardware()

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return (*BETTER, "distinct_1", "distinct_2", "speed")

    @classmethod
    def longest_answer(cls, config: Any) -> int | None:
        return config.max_new_tokens  # type: ignore[no-any-return]

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        if config.prompts == "documents":
            return (held_out_documents(),)
        return (item_files(config.prompts),) if config.prompts.lower().endswith(PROMPT_FILES) else ()

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """A file that cannot be read, or no skill."""
        if config.prompts != "documents":
            yield from misread(config.prompts, limit=config.max_prompts, where="evaluator.generation.prompts")

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        items = self.items(subject)
        prompts = [item.prompt for item in items]
        draw = partial(
            answer, subject, max_new_tokens=self.config.max_new_tokens, batch_size=self.config.batch_size
        )
        draw(prompts[:1])  # warm-up
        start = time.perf_counter()
        found = draw(prompts)
        seconds = time.perf_counter() - start
        samples = pd.DataFrame(
            {
                "task": task,
                "doc_hash": item_hashes(prompts),
                "prompt": prompts,
                "answer": found.texts,
                "target": [item.answer for item in items],
                "length": [len(tokens) for tokens in found.tokens],
                "distinct_2_per_text": [distinct(tokens, 2) for tokens in found.tokens],
                "repetition_4": [repetition(tokens, 4) for tokens in found.tokens],
                "loss": self.losses(subject, found.prompts, found.tokens),
            }
        )
        if any(item.checks for item in items):
            pairs = zip(found.texts, items, strict=True)
            samples["constraints_met"] = [
                share_met(text, item.checks) if item.checks else float("nan") for text, item in pairs
            ]
        metrics = [self.mean(task, name, samples[name]) for name in BETTER if name in samples]
        for n in (1, 2):
            value = distinct_over_all(found.tokens, n)
            metrics.append(Metric(task=task, metric=f"distinct_{n}", value=value, n=len(found.tokens)))
        tokens = int(samples["length"].sum())
        metrics.append(Metric(task=task, metric="speed", value=tokens / seconds, unit="tokens/s", n=1))
        facts = {
            "decoding": subject.decoding.name if subject.decoding is not None else "",
            "tokens": tokens,
            "truncated_prompts": found.truncated,
            "hardware": hardware(),
        }
        return Evaluation(metrics=metrics, samples=samples, facts=facts)

    def items(self, subject: Subject) -> list[Item]:
        """Prompts: a skill's items, rows of a file, or beginnings of test documents."""
        if self.config.prompts != "documents":
            return read_items(self.config.prompts, limit=self.config.max_prompts)
        if subject.documents is None:
            raise IncompatibleError("evaluator.generation.prompts=documents needs the stage corpus")
        size = self.config.prompt_bytes
        documents = [d for d in subject.documents("test") if len(d.text.encode()) > size]
        heads = [
            (d.id, d.text.encode()[:size].decode(errors="ignore"))
            for d in documents[: self.config.max_prompts]
        ]
        if not heads:
            raise IncompatibleError(
                f"evaluator.generation.prompt_bytes={size}: no test document is longer; lower it"
            )
        return [Item(id=name, skill="", prompt=head, answer="", checks={}) for name, head in heads]

    def losses(
        self, subject: Subject, contexts: Sequence[list[int]], answers: Sequence[list[int]]
    ) -> list[float]:
        """Loss per token of each answer after the very tokens it was drawn from; NaN for an empty one."""
        scorer = LikelihoodScorer(
            model=subject.model, max_length=subject.max_length, on_progress=subject.on_progress
        )
        kept = [index for index, tokens in enumerate(answers) if tokens]
        scores = scorer.score([ScoreRequest(contexts[index], answers[index]) for index in kept])
        losses = [float("nan")] * len(answers)
        for index, score in zip(kept, scores, strict=True):
            losses[index] = -score.total / len(answers[index])
        return losses

    def mean(self, task: str, name: str, values: Any) -> Metric:
        """The mean of a column over texts, with its standard error."""
        values = values.dropna()
        count = len(values)
        return Metric(
            task=task,
            metric=name,
            value=float(values.mean()) if count else float("nan"),
            unit=UNITS.get(name, ""),
            higher_is_better=BETTER[name],
            stderr=float(values.std(ddof=1) / count**0.5) if count > 1 else None,
            n=count,
        )


def distinct(tokens: Sequence[int], n: int) -> float:
    """Share of n-grams that are different from each other; NaN for a text shorter than n."""
    grams = list(zip(*(tokens[start:] for start in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else float("nan")


def distinct_over_all(texts: Sequence[Sequence[int]], n: int) -> float:
    """Different n-grams of all texts together, over all their tokens; 0 where nothing was said."""
    grams = {gram for tokens in texts for gram in zip(*(tokens[start:] for start in range(n)), strict=False)}
    total = sum(map(len, texts))
    return len(grams) / total if total else 0.0


def repetition(tokens: Sequence[int], n: int) -> float:
    """Share of n-grams that occurred earlier in the text; NaN for a text shorter than n."""
    counts = Counter(zip(*(tokens[start:] for start in range(n)), strict=False))
    total = sum(counts.values())
    return 1 - len(counts) / total if total else float("nan")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Generation]
