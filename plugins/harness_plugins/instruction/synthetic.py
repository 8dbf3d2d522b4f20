"""Synthetic instructions: proposed, then kept only where they differ from all kept before."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harness import (
    ConfigError,
    Conversation,
    Document,
    Instruction,
    Item,
    Method,
    Role,
    Split,
    Turn,
    hookimpl,
    rouge_l,
    skill_items,
)


class Synthetic(Instruction):
    """Self-Instruct's filter over proposals: unlike every instruction kept (ROUGE-L), of sensible length,
    without forbidden words.

    Paper: Wang et al. 2022, arXiv:2212.10560, section 3.2
    Differs: proposals come from the exercises' generator, not from a large language model
    """

    name = "synthetic"

    @dataclass(frozen=True, kw_only=True)
    class Config(Instruction.Config):
        skills: list[str] = field(default_factory=lambda: ["instructions", "recall"])
        """Skills whose generators propose, in equal parts."""
        num_proposals: int = 1_200
        """Training proposals in all; a tenth as many for validation and for test."""
        max_rouge: float = 0.7
        """Greatest ROUGE-L F-measure to an instruction already kept (0 to 1)."""
        min_words: int = 2
        """Fewest words of an instruction."""
        max_words: int = 150
        """Most words of an instruction."""
        forbidden: list[str] = field(default_factory=lambda: ["image", "graph", "picture"])
        """Words that a language model cannot deal with."""

        def __post_init__(self) -> None:
            if not 0 < self.max_rouge <= 1:
                raise ConfigError(f"instruction.max_rouge={self.max_rouge} must lie in (0, 1]")
            if self.num_proposals < 1 or not self.skills:
                raise ConfigError("instruction=synthetic needs num_proposals >= 1 and a skill")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        return cls.Config(num_proposals=200)

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        for split in Split:
            number = self.config.num_proposals if split is Split.train else self.config.num_proposals // 10
            share = max(1, number // len(self.config.skills))
            proposals = (i for skill in self.config.skills for i in skill_items(skill, split, seed, share))
            for item in self.kept(proposals):
                yield Conversation(
                    id=item.id,
                    turns=(
                        Turn(role=Role.user, text=item.prompt),
                        Turn(role=Role.assistant, text=item.answer),
                    ),
                    source=f"synthetic_{item.skill}",
                    split=split,
                    checks=item.checks,
                )

    def kept(self, proposals: Iterator[Item]) -> Iterator[Item]:
        """Proposals that pass, in their order."""
        pool: list[list[str]] = []
        for item in proposals:
            words = item.prompt.lower().split()
            if not self.config.min_words <= len(words) <= self.config.max_words:
                continue
            if set(words) & set(self.config.forbidden):
                continue
            if any(self._alike(words, other) for other in pool):
                continue
            pool.append(words)
            yield item

    def _alike(self, first: list[str], second: list[str]) -> bool:
        """Whether ROUGE-L reaches the limit; words in common bound it from above at a tenth of the cost."""
        shared = sum(word in second for word in first)
        if 2 * min(shared, len(second)) / (len(first) + len(second)) < self.config.max_rouge:
            return False
        return rouge_l(first, second) >= self.config.max_rouge


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Synthetic]
