"""Ruler: synthetic tasks that need a whole context, by its length and by where the answer stands."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness import (
    Choice,
    ConfigError,
    Evaluation,
    Evaluator,
    IncompatibleError,
    Method,
    Metric,
    Subject,
    check_counts,
    check_distinct,
    greedy_tokens,
    held_out_documents,
    hookimpl,
)
from harness_plugins.evaluator._long_tasks import TASKS, Exercise, largest


class Ruler(Evaluator):
    """What a model still finds, follows and counts in long contexts; made anew for every tokenizer, offline.

    Paper: Hsieh et al. 2024, arXiv:2404.06654, sections 3.1 to 3.4
    Differs: questions about real text ask for the word that follows others, as no data set is at hand
    Units: lengths in tokens of the model, question and answer included, to a word; score is the share of
        right answers that the greedily drawn text holds as words of their own
    Error: standard errors over exercises
    """

    name = "ruler"

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        tasks: list[str] = field(default_factory=lambda: list(TASKS))
        """Which of single_needle, several_keys, several_values, variable_tracking, common_words,
        question_answering."""
        lengths: list[int] = field(default_factory=lambda: [256, 512])
        """Context lengths; those beyond the model's window are tried all the same."""
        depths: list[float] = field(default_factory=lambda: [0.0, 0.5, 1.0])
        """Where the piece stands that is asked for (0 = start, 1 = end); of tasks that ask for several, which
        are spread over the context, there are as many exercises, and none is reported by depth."""
        num_items: int = 4
        """Exercises at every length and depth."""
        max_new_tokens: int = 24
        """Longest answer, in tokens."""

        def __post_init__(self) -> None:
            unknown = [task for task in self.tasks if task not in TASKS]
            if unknown or not self.tasks:
                raise ConfigError(f"evaluator.ruler.tasks={self.tasks} must name some of {', '.join(TASKS)}")
            if not self.lengths or min(self.lengths) < 64:
                raise ConfigError(f"evaluator.ruler.lengths={self.lengths} must all be at least 64")
            if not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
                raise ConfigError(f"evaluator.ruler.depths={self.depths} must lie between 0 and 1")
            check_counts(self, "evaluator.ruler", "num_items", "max_new_tokens")
            check_distinct(self, "evaluator.ruler", "tasks", "lengths", "depths")
            if self.max_new_tokens >= min(self.lengths):
                raise ConfigError(
                    f"evaluator.ruler.max_new_tokens={self.max_new_tokens} leaves no room for a question in "
                    f"lengths={self.lengths}; lower the one or raise the others"
                )

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(tasks=["single_needle"], lengths=[200], num_items=1, max_new_tokens=4)

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        return tuple(config.tasks)

    @classmethod
    def only(cls, config: Any, task: str) -> Any:
        return replace(config, tasks=[task])

    @classmethod
    def num_items(cls, config: Any, task: str) -> int | None:
        return len(config.lengths) * len(config.depths) * int(config.num_items)

    @classmethod
    def longest(cls, config: Any) -> int | None:
        return max(config.lengths)  # type: ignore[no-any-return]

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        return (held_out_documents(),)

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        texts = self.texts(subject)
        rows: list[dict[str, Any]] = []
        exercises: list[Exercise] = []
        prompts: list[list[int]] = []
        for length in self.config.lengths:
            for depth in self.config.depths:
                for item in range(self.config.num_items):
                    rng = random.Random(f"{task}/{length}/{depth}/{item}")
                    exercise = TASKS[task](rng, texts)
                    prompt = self.fitted(subject, exercise, length=length, depth=depth)
                    prompts.append(prompt)
                    text = subject.tokenizer.decode(prompt)
                    rows.append(
                        {
                            "task": task,
                            "doc_hash": hashlib.sha256(text.encode()).hexdigest(),
                            "length": length,
                            "depth": depth if exercise.deep is not None else float("nan"),
                            "prompt": text[-200:],
                            "target": ", ".join(exercise.answers),
                            "tokens": len(prompt),
                        }
                    )
                    exercises.append(exercise)
        said = greedy_tokens(subject, prompts, max_new_tokens=self.config.max_new_tokens)
        for row, exercise, tokens in zip(rows, exercises, said, strict=True):
            row["answer"] = subject.tokenizer.decode(tokens, skip_special_tokens=True)
            row["score"] = exercise.score(row["answer"])
        samples = pd.DataFrame(rows)
        metrics = [self.mean(task, "score", samples["score"])]
        for group in ("length", "depth"):
            for value, part in samples.groupby(group):
                metrics.append(self.mean(task, f"score.{group}={value:g}", part["score"]))
        for pair, part in samples.groupby(["length", "depth"]):
            where = "length={:g}.depth={:g}".format(*pair)  # type: ignore[misc, str-format]
            metrics.append(self.mean(task, f"score.{where}", part["score"]))
        facts = {"window": subject.max_length, "lengths": list(self.config.lengths)}
        return Evaluation(metrics=metrics, samples=samples, facts=facts)

    def texts(self, subject: Subject) -> list[str]:
        """Real text that fills contexts."""
        known = subject.documents("test") if subject.documents is not None else []
        texts = [document.text for document in known if len(document.text.split()) >= 24]
        if not texts:
            raise IncompatibleError(
                "evaluator.ruler needs test documents of 24 words or more; add the stage corpus to `stages`"
            )
        return texts

    def fitted(self, subject: Subject, exercise: Exercise, *, length: int, depth: float) -> list[int]:
        """Tokens of the longest context, to a word, that leaves room for the question and the answer.

        Raises: ConfigError where what is planted does not fit
        """
        room = length - self.config.max_new_tokens

        def made(pieces: int, words: int = 0) -> list[int]:
            context = exercise.context(pieces, words=words, depth=depth)
            whole = subject.prompt(f"{context}\n{exercise.question}")
            ids: list[int] = subject.tokenizer.encode(whole, add_special_tokens=subject.template is None)
            return ids

        if (least := len(made(exercise.fewest))) > room:
            raise ConfigError(
                f"evaluator.ruler.lengths: {length} tokens hold no context beside a question, which takes "
                f"{least} with what it asks for, and an answer of {self.config.max_new_tokens}; raise lengths"
            )
        pieces = largest(lambda count: len(made(count)) <= room, at_least=exercise.fewest)
        return made(pieces, largest(lambda count: len(made(pieces, count)) <= room))

    def mean(self, task: str, metric: str, values: Any) -> Metric:
        """The mean of scores with its standard error."""
        count = len(values)
        error = float(values.std(ddof=1) / count**0.5) if count > 1 else None
        return Metric(task=task, metric=metric, value=float(values.mean()), stderr=error, n=count)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Ruler]
