"""Rules: the answer that meets more of the prompt's machine-checkable constraints wins."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from harness import Duel, Judge, Method, hookimpl, share_met


class Rules(Judge):
    """Compares the share of constraints that each answer meets; equal shares are a draw."""

    name = "rules"

    @dataclass(frozen=True, kw_only=True)
    class Config(Judge.Config):
        prefer_shorter: bool = False
        """Whether the shorter of two answers that meet equally many constraints wins."""

    config: Config

    @classmethod
    def reads_checks(cls, config: Any) -> bool:
        return True

    def prefer(self, duels: Sequence[Duel]) -> list[float]:
        return [self._prefer(duel) for duel in duels]

    def _prefer(self, duel: Duel) -> float:
        first, second = (share_met(answer, duel.checks) for answer in (duel.first, duel.second))
        if first != second:
            return float(first > second)
        if self.config.prefer_shorter and len(duel.first) != len(duel.second):
            return float(len(duel.first) < len(duel.second))
        return 0.5


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Rules]
