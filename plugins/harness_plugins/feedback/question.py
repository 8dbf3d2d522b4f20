"""Question feedback: answers to questions about an answer decide which one is better."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from harness import ConfigError, Conversation, Feedback, Method, Preference, hookimpl, share_met
from harness_plugins.feedback._answers import exercises, near_misses

Question = Callable[[str, Conversation], float]

QUESTIONS: dict[str, Question] = {
    "follows": lambda answer, c: share_met(answer, c.checks),
    "right_length": lambda answer, c: float(len(answer.split()) == len(c.turns[-1].text.split())),
    "on_topic": lambda answer, c: _overlap(answer, c.turns[-2].text),
    "right_start": lambda answer, c: float(answer.split()[:1] == c.turns[-1].text.split()[:1]),
}
"""Question -> answer between 0 (no) and 1 (yes), for an answer in its conversation."""


class QuestionAnswers(Feedback):
    """Asks fixed questions about two candidate answers; the greater weighted sum of answers wins, draws are
    dropped. The questions are answered by code, as a labeller would answer them.

    Paper: Nakano et al. 2021, arXiv:2112.09332 (WebGPT's labelling by questions); survey section 5.2.2
    """

    name = "question"
    reads_checks = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Feedback.Config):
        weights: dict[str, float] = field(
            default_factory=lambda: {"follows": 2.0, "right_length": 0.5, "right_start": 0.5}
        )
        """Question to weight; the questions are follows, right_length, on_topic and right_start."""
        candidates: int = 3
        """Answers compared for each prompt, the right one included."""

        def __post_init__(self) -> None:
            unknown = sorted(set(self.weights) - set(QUESTIONS))
            if unknown or not self.weights:
                raise ConfigError(
                    f"feedback.weights={dict(self.weights)} must name some of {list(QUESTIONS)}"
                )
            if self.candidates < 2:
                raise ConfigError(f"feedback.candidates={self.candidates} must be at least 2")

    config: Config

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        for conversation in exercises(conversations):
            rng = random.Random(f"{seed}/{conversation.id}")
            chosen = conversation.turns[-1].text
            wrong = near_misses(rng, conversation, conversations, self.config.candidates - 1)
            scored = [(self.score(answer, conversation), answer) for answer in (chosen, *wrong)]
            best, worst = max(scored), min(scored)
            if best[0] > worst[0]:
                yield Preference(
                    id=conversation.id,
                    prompt=conversation.turns[0].text,
                    chosen=best[1],
                    rejected=worst[1],
                    checks=conversation.checks,
                )

    def score(self, answer: str, conversation: Conversation) -> float:
        """Weighted sum of the answers to all questions."""
        return sum(w * QUESTIONS[name](answer, conversation) for name, w in self.config.weights.items())


def _overlap(answer: str, prompt: str) -> float:
    words = answer.split()
    return sum(word in prompt.split() for word in words) / max(1, len(words))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [QuestionAnswers]
