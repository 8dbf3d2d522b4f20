"""Win rate: how often a judge prefers the model's answers to a baseline's."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from harness import (
    PROMPT_FILES,
    CellView,
    Choice,
    ConfigError,
    DataError,
    Duel,
    Evaluation,
    Evaluator,
    HarnessError,
    IncompatibleError,
    Item,
    Method,
    Metric,
    Problem,
    Subject,
    answer,
    check_counts,
    hookimpl,
    item_files,
    item_hashes,
    length_controlled,
    model_ref,
    path_ref,
    read_answers,
    read_items,
    same_prompt,
)


class WinRate(Evaluator):
    """Pairwise comparison by the chosen judge; both orders are asked, a draw counts one half.

    Beside the win rate: the length-controlled one (as if answers were equally long), and the position bias
    (how much more often than half the first answer is preferred). Duels without a verdict in both orders
    are left out, and their share is reported.
    Paper: Dubois et al. 2024, arXiv:2404.04475 (length control); Zheng et al. 2023, arXiv:2306.05685 (bias)
    Error: standard error over prompts; a verdict that turns with the order counts as a coin toss
    """

    name = "win_rate"
    uses = frozenset({"judge", "decoding"})
    on_validation = frozenset({"win_rate"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        baseline: str = model_ref()
        """Model whose answers are the other side; empty = `baseline_answers`, else the prompts' answers."""
        prompts: str = path_ref("instructions", suffixes=PROMPT_FILES, or_name=True)
        """A skill whose items are asked, or a file of rows with `prompt` and `answer`."""
        answers: str = path_ref(suffixes=PROMPT_FILES)
        """File of this side's answers to the prompts (`prompt` or `instruction`, `answer` or `output`), in
        place of the model's own; then its prompts are asked unless `prompts` names a file."""
        baseline_answers: str = path_ref(suffixes=PROMPT_FILES)
        """File of the other side's answers."""
        max_prompts: int = 64
        """Prompts asked, from the start."""
        split: str = "test"
        """Prompts to ask: `test`, or `validation` for tuning; rows of a file say theirs in `split`."""
        max_new_tokens: int = 24
        """Longest answer, in tokens."""

        def __post_init__(self) -> None:
            check_counts(self, "evaluator.win_rate", "max_prompts", "max_new_tokens")
            if self.split not in ("validation", "test"):
                raise ConfigError(f"evaluator.win_rate.split={self.split} must be validation or test")
            if self.baseline and self.baseline_answers:
                raise ConfigError("evaluator.win_rate: give baseline or baseline_answers, not both")

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(max_prompts=6, max_new_tokens=8)

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return ("win_rate",)

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Files that cannot be read, and a judge that says nothing of these prompts."""
        judge = cell.choice("judge")
        try:
            evaluator = cls(config)
            items = evaluator.items()
            for option in ("answers", "baseline_answers"):
                evaluator.from_file(option, items)
        except (HarnessError, OSError) as error:
            yield Problem(where="evaluator.win_rate", message=str(error))
            return
        blind = judge is not None and judge.method.reads_checks(judge.config)  # type: ignore[attr-defined]
        if judge is not None and blind and not any(item.checks for item in items):
            yield Problem(
                where=f"judge={judge.method.name}",
                message=f"it compares machine-checkable constraints, and none of the prompts of "
                f"{config.answers or config.prompts} has any, so that every duel would be a draw; use "
                "judge=reward_model or openai, or prompts with checks",
            )

    @classmethod
    def longest_answer(cls, config: Any) -> int | None:
        return None if config.answers else config.max_new_tokens

    @classmethod
    def item_texts(cls, config: Any) -> Sequence[Choice]:
        return (item_files(asked),) if (asked := _asked(config)).endswith(PROMPT_FILES) else ()

    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        judge = subject.judge
        assert judge is not None
        items = self.items()
        if judge.reads_checks(judge.config):
            items = [item for item in items if item.checks]
            if not items:
                raise IncompatibleError(
                    f"judge={judge.name} needs prompts with machine-checkable constraints"
                )
        ours, cut = self.ours(subject, items)
        theirs, their_cut = self.theirs(subject, items)
        forward = [
            Duel(prompt=item.prompt, first=a, second=b, checks=item.checks)
            for item, a, b in zip(items, ours, theirs, strict=True)
        ]
        backward = [replace(duel, first=duel.second, second=duel.first) for duel in forward]
        both = np.array(judge.prefer([*forward, *backward]), dtype=float)
        one, other = both[: len(items)], 1 - both[len(items) :]
        told = ~np.isnan(one + other)
        if not told.any():
            raise IncompatibleError(f"judge={judge.name} gave no duel a verdict in both orders")
        wins = (one + other) / 2
        longer = np.array([len(a) - len(b) for a, b in zip(ours, theirs, strict=True)], dtype=float)
        samples = pd.DataFrame(
            {
                "task": task,
                "doc_hash": item_hashes([item.prompt for item in items]),
                "prompt": [item.prompt for item in items],
                "answer": ours,
                "target": theirs,
                "win_rate": wins,
                "orders_agree": one == other,
                "longer": longer,
            }
        )
        facts = {
            "judge": judge.name,
            "draws": int((wins == 0.5).sum()),
            "orders_disagree": int((one != other)[told].sum()),
            "excluded_share": float(1 - told.mean()),
            "answers_cut": cut,
            "baseline_answers_cut": their_cut,
            "longer_mean": float(longer.mean()),
            **judge.facts(),
            "against": self.opponent(subject),
        }
        return Evaluation(
            metrics=metrics(task, one[told], other[told], longer[told]), samples=samples[told], facts=facts
        )

    def items(self) -> list[Item]:
        """The prompts."""
        return read_items(_asked(self.config), limit=self.config.max_prompts, split=self.config.split)

    def ours(self, subject: Subject, items: list[Item]) -> tuple[list[str], int]:
        """This side's answers, and how many reached their limit."""
        return self.from_file("answers", items) or self.asked(subject, items)

    def theirs(self, subject: Subject, items: list[Item]) -> tuple[list[str], int]:
        """The other side's answers, and how many reached their limit."""
        if subject.baseline is not None:
            return self.asked(subject.baseline(), items)
        if self.config.baseline:
            raise IncompatibleError(f"evaluator.win_rate.baseline={self.config.baseline} was not loaded")
        filed = self.from_file("baseline_answers", items)
        if filed is not None:
            return filed
        found = [item.answer for item in items]
        if not all(found):
            raise DataError(
                f"evaluator.win_rate.prompts={self.config.prompts} has prompts without a reference answer; "
                "set evaluator.win_rate.baseline to a model, or baseline_answers to a file"
            )
        return found, 0

    def asked(self, subject: Subject, items: list[Item]) -> tuple[list[str], int]:
        """A subject's answers to all prompts."""
        limit = self.config.max_new_tokens
        found = answer(subject, [item.prompt for item in items], max_new_tokens=limit)
        return found.texts, sum(len(tokens) >= limit for tokens in found.tokens)

    def from_file(self, option: str, items: list[Item]) -> tuple[list[str], int] | None:
        """Answers to the prompts out of the option's file, whatever their order; None where it names none.

        A prompt that is asked several times gets its answers in their order; a single one serves all.
        Raises: DataError counting prompts that the file does not answer, or not as often as they are asked
        """
        file = getattr(self.config, option)
        if not file:
            return None
        known = read_answers(file)
        asked, found, missing = Counter[str](), list[str](), list[str]()
        for item in items:
            prompt = same_prompt(item.prompt)
            own = known.get(prompt, [])
            if asked[prompt] < len(own) or len(set(own)) == 1:
                found.append(own[min(asked[prompt], len(own) - 1)])
            else:
                missing.append(item.prompt)
            asked[prompt] += 1
        if missing:
            raise DataError(
                f"evaluator.win_rate.{option}={file} answers {len(found)} of {len(items)} prompts; the first "
                f"without an answer of its own: {missing[0][:80]!r}"
            )
        return found, 0

    def opponent(self, subject: Subject) -> str:
        """What the other side is."""
        if subject.baseline is not None:
            return "model"
        return "file" if self.config.baseline_answers else "reference answers"


def _asked(config: Any) -> str:
    """Where the prompts come from: a file of answers where no other file is named."""
    own = config.answers and not config.prompts.endswith(PROMPT_FILES)
    return str(config.answers if own else config.prompts)


def metrics(task: str, one: np.ndarray, other: np.ndarray, longer: np.ndarray) -> list[Metric]:
    """Win rate, length-controlled win rate and position bias of verdicts for us, in either order."""
    count, wins = len(one), (one + other) / 2
    error = None
    if count > 1:
        error = float(((wins.var(ddof=1) + ((one - other) ** 2).mean() / 4) / count) ** 0.5)
    controlled, its_error = length_controlled(wins, longer)
    bias = (one - other) / 2  # verdicts for the first place less those for the second, over both orders
    bias_error = float(bias.std(ddof=1) / count**0.5) if count > 1 else None
    return [
        Metric(task=task, metric="win_rate", value=float(wins.mean()), stderr=error, n=count),
        Metric(task=task, metric="length_controlled_win_rate", value=controlled, stderr=its_error, n=count),
        Metric(
            task=task,
            metric="position_bias",
            value=float(bias.mean()),
            stderr=bias_error,
            n=count,
            higher_is_better=False,
        ),
    ]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [WinRate]
