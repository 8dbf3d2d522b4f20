"""Task instructions: exercises with checkable answers, also inverted."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

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
    skill_families,
    skill_items,
)
from harness_plugins.instruction._descriptions import described

HELD_OUT_DIVISOR = 10


class Task(Instruction):
    """Instances of tasks written out as instruction and answer; inverted ones ask for the instruction.

    Every family of tasks has the same number of training items, small ones by repetition.

    Paper: Wei et al. 2021, arXiv:2109.01652 (tasks as instructions, some inverted)
    """

    name = "task"

    @dataclass(frozen=True, kw_only=True)
    class Config(Instruction.Config):
        skills: list[str] = field(default_factory=lambda: ["instructions", "recall"])
        """Skills or groups of skills; each family among them gets an equal part."""
        num_items: int = 6000
        """Training items in all; a tenth as many for validation and for test."""
        described_items: int = 0
        """Further training items made from the corpus's documents: a name to be described in a sentence."""
        inverted_share: float = 0.0
        """Share of items that show the answer and ask for the instruction (0 to 1)."""

        def __post_init__(self) -> None:
            if not self.skills:
                raise ConfigError("instruction.skills=[] must name at least one skill, e.g. [recall]")
            if self.num_items < 1:
                raise ConfigError(f"instruction.num_items={self.num_items} must be at least 1")
            if not 0 <= self.inverted_share <= 1:
                raise ConfigError(f"instruction.inverted_share={self.inverted_share} must lie in [0, 1]")

    config: Config

    @classmethod
    def has_checks(cls, config: Any) -> bool:
        return config.inverted_share < 1  # type: ignore[no-any-return]

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        families = [family for skill in self.config.skills for family in skill_families(skill)]
        for split in Split:
            total = (
                self.config.num_items if split is Split.train else self.config.num_items // HELD_OUT_DIVISOR
            )
            for place, family in enumerate(families):
                share = max(1, (total + place) // len(families))
                yield from self._family(family, split, seed, share)
            wanted = self.config.described_items // (1 if split is Split.train else HELD_OUT_DIVISOR)
            if not wanted:
                continue
            for index, (name, topic, sentence) in enumerate(described(documents, split, wanted)):
                invert = self._inverts(index)
                turns = (
                    _asked(f"Name: {sentence}", topic) if invert else _asked(f"Describe: {topic}", sentence)
                )
                source = "describe_inverted" if invert else "describe"
                yield Conversation(id=name, turns=turns, source=source, split=split)

    def _inverts(self, index: int) -> bool:
        """Whether an item is inverted; spreads the share evenly."""
        share = self.config.inverted_share
        return int((index + 1) * share) > int(index * share)

    def _family(self, family: str, split: Split, seed: int, number: int) -> Iterator[Conversation]:
        """Items of one family; where training wants more than there are, they come again."""
        items = list(skill_items(family, split, seed, number))
        for index in range(number if split is Split.train else len(items)):
            item, lap = items[index % len(items)], index // len(items)
            invert = self._inverts(index)
            yield Conversation(
                id=f"{item.id}~{lap}" if lap else item.id,
                turns=_inverted(item) if invert else _asked(item.prompt, item.answer),
                source=f"{item.skill}_inverted" if invert else item.skill,
                split=split,
                checks={} if invert else item.checks,
            )


def _asked(prompt: str, answer: str) -> tuple[Turn, ...]:
    return Turn(role=Role.user, text=prompt), Turn(role=Role.assistant, text=answer)


def _inverted(item: Item) -> tuple[Turn, ...]:
    return _asked(f"Ask for: {item.answer}", item.prompt)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Task]
