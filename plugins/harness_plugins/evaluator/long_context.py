"""Long context: loss by position and by length, and finding a key planted at any depth."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from harness import (
    Choice,
    ConfigError,
    Evaluation,
    Evaluator,
    IncompatibleError,
    LikelihoodScorer,
    Method,
    Metric,
    ScoreRequest,
    Subject,
    check_distinct,
    encode_plain,
    held_out_documents,
    hookimpl,
)
from harness_plugins.evaluator._long_tasks import largest, noise

if TYPE_CHECKING:
    import pandas as pd

READ_BY = {"loss": ("num_windows", "buckets"), "passkey": ("depths", "num_keys", "num_choices")}
"""The tasks, with the options that each alone reads."""
QUESTION = "What is the pass key? The pass key is"


class LongContext(Evaluator):
    """What a model does with contexts of growing length, beyond the trained window too.

    Paper: Mohtashami and Jaggi 2023, arXiv:2305.16300 (pass key); Chen et al. 2023, arXiv:2306.15595
    Units: lengths and positions in tokens (the pass key's with its answer, to a sentence); loss in nats
        per token, comparable between models of one tokenizer only; bits per byte beside it
    """

    name = "long_context"

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        tasks: list[str] = field(default_factory=lambda: list(READ_BY))
        """Which of loss, passkey."""
        lengths: list[int] = field(default_factory=lambda: [128, 256, 512])
        """Context lengths; those beyond the model's window are tried all the same."""
        num_windows: int = 8
        """Stretches of test documents at most, the same ones cut to every length; `windows` says how many
        of the longest length there were."""
        buckets: int = 4
        """Equal parts of the longest length whose loss is reported by position."""
        depths: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
        """Where in the context the pass key stands (0 = start, 1 = end)."""
        num_keys: int = 4
        """Pass keys tried at every length and depth."""
        num_choices: int = 8
        """Keys the right one is compared with, itself included; 1 / num_choices is chance."""

        def __post_init__(self) -> None:
            if not self.tasks or not set(self.tasks) <= READ_BY.keys():
                raise ConfigError(
                    f"evaluator.long_context.tasks={self.tasks} must name some of {', '.join(READ_BY)}"
                )
            if not self.lengths or min(self.lengths) < 16:
                raise ConfigError(f"evaluator.long_context.lengths={self.lengths} must all be at least 16")
            if not self.depths or not all(0 <= depth <= 1 for depth in self.depths):
                raise ConfigError(f"evaluator.long_context.depths={self.depths} must lie between 0 and 1")
            check_distinct(self, "evaluator.long_context", "tasks", "lengths", "depths")
            if self.num_choices < 2 or self.num_windows < 1 or self.num_keys < 1 or self.buckets < 1:
                raise ConfigError(
                    "evaluator.long_context needs num_choices >= 2, num_windows, num_keys, buckets >= 1"
                )

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(lengths=[160, 256], num_windows=2, num_keys=1)

    @classmethod
    def tasks(cls, config: Any) -> Sequence[str]:
        return tuple(config.tasks)

    @classmethod
    def only(cls, config: Any, task: str) -> Any:
        others, known = READ_BY["passkey" if task == "loss" else "loss"], cls.Config()
        return replace(config, tasks=[task], **{name: getattr(known, name) for name in others})

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return ("loss", "bits_per_byte") if task == "loss" else ("acc", "exact_match")

    @classmethod
    def longest(cls, config: Any) -> int | None:
        return max(config.lengths)  # type: ignore[no-any-return]

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        return (held_out_documents(),)

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        longest = max(self.config.lengths)
        scorer = LikelihoodScorer(
            model=subject.model,
            max_length=longest,
            batch_tokens=max(4096, longest),
            on_progress=subject.on_progress,
        )
        measure = self.loss if task == "loss" else self.passkey
        samples = pd.DataFrame(measure(subject, scorer))
        samples.insert(0, "task", task)
        groups = {"loss": ("length", "position"), "passkey": ("length", "depth")}[task]
        metrics = self.summarize(task, samples, groups)
        facts = {"window": subject.max_length, "lengths": list(self.config.lengths), **scorer.facts}
        if task == "loss":
            facts["windows"] = int(samples["doc_hash"].nunique())
        return Evaluation(metrics=metrics, samples=samples, facts=facts)

    def loss(self, subject: Subject, scorer: LikelihoodScorer) -> list[dict[str, Any]]:
        """One row a window and length, and one a window and position in the longest."""
        windows = self.windows(subject)
        rows = []
        for length in self.config.lengths:
            requests = [ScoreRequest(ids[:1], ids[1 : length + 1]) for ids in windows]
            for index, score in enumerate(scorer.score(requests)):
                losses = -score.log_probs.double().numpy()
                text = subject.tokenizer.decode(windows[index][1 : length + 1], skip_special_tokens=True)
                bits = float(losses.sum()) / math.log(2) / max(1, len(text.encode()))
                row = {"doc_hash": _hash(windows[index]), "prompt": text[:80]}
                rows.append({**row, "length": length, "loss": losses.mean(), "bits_per_byte": bits})
                if length == max(self.config.lengths):
                    for part in np.array_split(np.arange(len(losses)), self.config.buckets):
                        rows.append({**row, "position": int(part[0]), "loss": losses[part].mean()})
        return rows

    def windows(self, subject: Subject) -> list[list[int]]:
        """Token windows of the longest length from consecutive test documents."""
        if subject.documents is None:
            raise IncompatibleError(
                "evaluator.long_context needs documents; add the stage corpus to `stages`"
            )
        longest, wanted = max(self.config.lengths) + 1, self.config.num_windows
        tokenizer = subject.tokenizer
        found: list[list[int]] = []
        ids: list[int] = []
        for document in subject.documents("test"):
            ids += [*encode_plain(tokenizer, document.text)["input_ids"], tokenizer.eos_token_id]
            while len(ids) >= longest and len(found) < wanted:
                found.append(ids[:longest])
                ids = ids[longest:]
            if len(found) == wanted:
                return found
        if not found:
            raise IncompatibleError(
                f"evaluator.long_context.lengths={self.config.lengths}: all test documents together hold "
                f"fewer than {longest} tokens; lower lengths or raise corpus.test_share"
            )
        return found

    def passkey(self, subject: Subject, scorer: LikelihoodScorer) -> list[dict[str, Any]]:
        """One row a length, depth and key: was the planted key the likeliest of the choices?"""
        rng = random.Random(0)
        rows: list[dict[str, Any]] = []
        requests: list[ScoreRequest] = []
        for length in self.config.lengths:
            for depth in self.config.depths:
                for _ in range(self.config.num_keys):
                    keys = [str(key) for key in rng.sample(range(10000, 100000), self.config.num_choices)]
                    prompt = self.plant(subject, keys[0], length, depth)
                    context = self.read(subject, prompt)
                    requests += [ScoreRequest(context, self.answer(subject, key)) for key in keys]
                    digest = hashlib.sha256(prompt.encode()).hexdigest()
                    rows.append({"doc_hash": digest, "length": length, "depth": depth, "target": keys[0]})
        scores = scorer.score(requests)
        for index, row in enumerate(rows):
            choices = scores[index * self.config.num_choices : (index + 1) * self.config.num_choices]
            row["acc"] = float(choices[0].total > max(choice.total for choice in choices[1:]))
            row["exact_match"] = float(choices[0].greedy)
        return rows

    def plant(self, subject: Subject, key: str, length: int, depth: float) -> str:
        """The longest prompt that, with the key after it, is of `length` tokens or fewer; the key at `depth`.

        Raises: ConfigError where not even the key and the question are
        """
        needle = f"The pass key is {key}. Remember it. {key} is the pass key. "
        room = length - len(self.answer(subject, key))

        def made(count: int) -> str:
            filler = [f"{noise(index)} " for index in range(count)]
            place = round(depth * count)
            return subject.prompt("".join([*filler[:place], needle, *filler[place:], QUESTION]))

        if (least := len(self.read(subject, made(0)))) > room:
            raise ConfigError(
                f"evaluator.long_context.lengths: {length} tokens do not hold a pass key and the question "
                f"for it, which take {least + length - room}; raise lengths"
            )
        return made(largest(lambda count: len(self.read(subject, made(count))) <= room))

    def read(self, subject: Subject, prompt: str) -> list[int]:
        """A prompt's tokens, those included that the tokenizer puts before a text where no template does."""
        ids: list[int] = subject.tokenizer.encode(prompt, add_special_tokens=subject.template is None)
        return ids

    def answer(self, subject: Subject, key: str) -> list[int]:
        """A key's tokens."""
        ids: list[int] = subject.tokenizer.encode(f" {key}", add_special_tokens=False)
        return ids

    def summarize(self, task: str, samples: pd.DataFrame, groups: Sequence[str]) -> list[Metric]:
        """Means over windows or keys: over all, by each group, and, for the pass key, by the grid."""
        names = ("loss", "bits_per_byte") if task == "loss" else ("acc", "exact_match")
        metrics = []
        for name in names:
            for group in groups:
                for value, rows in samples.dropna(subset=[group]).groupby(group):
                    metrics += self.mean(task, f"{name}.{group}={value:g}", rows.get(name))
            if task == "passkey":
                metrics += self.mean(task, name, samples[name])
                for (length, depth), rows in samples.groupby(["length", "depth"]):
                    metrics += self.mean(task, f"{name}.length={length:g}.depth={depth:g}", rows[name])
        return metrics

    def mean(self, task: str, metric: str, values: Any) -> list[Metric]:
        """The mean of a column with its standard error; nothing where it holds no values."""
        values = None if values is None else values.dropna()
        if values is None or not len(values):
            return []
        count = len(values)
        error = float(values.std(ddof=1) / count**0.5) if count > 1 else None
        unit = {"loss": "nats/token", "bits_per_byte": "bits/byte"}.get(metric.partition(".")[0], "")
        better = task == "passkey"
        value = float(values.mean())
        return [
            Metric(
                task=task,
                metric=metric,
                value=value,
                unit=unit,
                higher_is_better=better,
                stderr=error,
                n=count,
            )
        ]


def _hash(ids: Sequence[int]) -> str:
    return hashlib.sha256(" ".join(map(str, ids)).encode()).hexdigest()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [LongContext]
