"""Rule feedback: code decides which of two answers follows the instruction."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness import ConfigError, Conversation, Feedback, Method, Preference, hookimpl
from harness_plugins.feedback._answers import exercises, near_misses


class Rule(Feedback):
    """The right answer against near misses that break the prompt's checks.

    Conversations without checks, or whose own answer breaks them, yield nothing.
    Paper: Glaese et al. 2022, arXiv:2209.14375 (rules); survey section 5.2.2
    """

    name = "rule"
    reads_checks = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Feedback.Config):
        pairs_per_prompt: int = 1
        """Rejected answers for each prompt, all different."""

        def __post_init__(self) -> None:
            if self.pairs_per_prompt < 1:
                raise ConfigError(f"feedback.pairs_per_prompt={self.pairs_per_prompt} must be at least 1")

    config: Config

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        for conversation in exercises(conversations):
            rng = random.Random(f"{seed}/{conversation.id}")
            found = near_misses(rng, conversation, conversations, self.config.pairs_per_prompt)
            for index, rejected in enumerate(found):
                yield Preference(
                    id=f"{conversation.id}/{index}",
                    prompt=conversation.turns[0].text,
                    chosen=conversation.turns[1].text,
                    rejected=rejected,
                    checks=conversation.checks,
                )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Rule]
