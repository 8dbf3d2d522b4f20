"""Multi-stage instruction tuning: one source after another."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from harness import ConfigError, Conversation, InstructionStrategy, Method, hookimpl


class MultiStage(InstructionStrategy):
    """Task-formatted data first, daily chat last, say; within a stage the order is random.

    Paper: survey section 5.1.2 (YuLan-Chat); Zhou et al. 2023
    Raises: ConfigError if a stage names no source of the data
    """

    name = "multi_stage"

    @dataclass(frozen=True, kw_only=True)
    class Config(InstructionStrategy.Config):
        sources: list[str] = field(default_factory=list)
        """Sources in the order of their stages; those left out come first, mixed."""
        keep_share: float = 0.0
        """Share of each stage's conversations met again in the next stage, against forgetting (0 to 1)."""

        def __post_init__(self) -> None:
            if not 0 <= self.keep_share <= 1:
                raise ConfigError(f"instruction_strategy.keep_share={self.keep_share} must lie in [0, 1]")

    config: Config

    @classmethod
    def trial(cls, sources: Sequence[str]) -> Config:
        return cls.Config(sources=list(sources[:2]), keep_share=0.2)

    def schedule(self, conversations: Sequence[Conversation], rng: np.random.Generator) -> list[Conversation]:
        known = {conversation.source for conversation in conversations}
        unknown = sorted(set(self.config.sources) - known)
        if unknown:
            raise ConfigError(f"instruction_strategy.sources names {unknown}; the data has {sorted(known)}")
        rank = {source: 1 + place for place, source in enumerate(self.config.sources)}
        order: list[Conversation] = []
        kept: list[Conversation] = []
        for stage in range(len(self.config.sources) + 1):
            members = [c for c in conversations if rank.get(c.source, 0) == stage]
            met = [*members, *kept]
            order += [met[index] for index in rng.permutation(len(met))]
            number = round(self.config.keep_share * len(members))
            kept = [members[index] for index in rng.permutation(len(members))[:number]]
        return order


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [MultiStage]
