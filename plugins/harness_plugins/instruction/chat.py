"""Chat: conversations of several turns."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness import (
    ROWS,
    ConfigError,
    Conversation,
    Document,
    Instruction,
    Method,
    Role,
    Split,
    Turn,
    hookimpl,
    path_ref,
    skill_items,
)
from harness_plugins.instruction._messages import MessagesReader


class _Messages(MessagesReader):
    """What instruction=messages reads, under its name."""

    name = "messages"


class Chat(Instruction):
    """Multi-turn conversations: {messages: [{role, content}]} from files, or exercises asked in a row.

    Every answer is learned, nothing else. Without a path, a conversation is 2 to `max_exchanges` exercises.
    With one it is instruction=messages.
    Raises: DataError naming file and entry of what does not have the format
    """

    name = "chat"

    @dataclass(frozen=True, kw_only=True)
    class Config(Instruction.Config):
        path: str = path_ref(suffixes=ROWS)
        """JSON, JSON Lines or Parquet with `messages`; empty makes conversations of exercises."""
        skills: list[str] = field(default_factory=lambda: ["instructions", "recall"])
        """Skills of the exercises, in equal parts."""
        num_conversations: int = 2_000
        """Training conversations made of exercises; a tenth as many for validation and for test."""
        max_exchanges: int = 3
        """Most questions of a conversation made of exercises."""

        def __post_init__(self) -> None:
            if self.max_exchanges < 2 or self.num_conversations < 1 or not self.skills:
                raise ConfigError(
                    "instruction=chat needs max_exchanges >= 2, num_conversations >= 1 and a skill"
                )

    config: Config

    @classmethod
    def has_checks(cls, config: Any) -> bool:
        return not config.path

    @classmethod
    def idle(cls, config: Any) -> Mapping[str, str]:
        made = ("skills", "num_conversations", "max_exchanges") if config.path else ()
        return dict.fromkeys(made, "conversations are read from instruction.path, and none are made")

    @classmethod
    def check_files(cls, config: Any) -> None:
        if config.path:
            _Messages.check_files(_Messages.Config(path=config.path))

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        if self.config.path:
            read = _Messages(_Messages.Config(path=self.config.path))
            yield from read.conversations(documents, seed)
            self.left_out = read.left_out
            return
        for split in Split:
            number = (
                self.config.num_conversations if split is Split.train else self.config.num_conversations // 10
            )
            yield from self._made(split, max(1, number), seed)

    def _made(self, split: Split, number: int, seed: int) -> Iterator[Conversation]:
        rng = random.Random(f"chat/{split.value}/{seed}")
        most = number * self.config.max_exchanges
        items = [item for skill in self.config.skills for item in skill_items(skill, split, seed, most)]
        rng.shuffle(items)
        stock = iter(items)
        for index in range(number):
            size = rng.randint(2, self.config.max_exchanges)
            asked = [item for _, item in zip(range(size), stock, strict=False)]
            if not asked:
                return
            turns: list[Turn] = []
            for item in asked:
                turns.append(Turn(role=Role.user, text=item.prompt))
                turns.append(Turn(role=Role.assistant, text=item.answer))
            yield Conversation(
                id=f"chat/{split.value}/{seed}/{index}",
                turns=tuple(turns),
                source="chat",
                split=split,
                checks=asked[-1].checks,
            )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Chat]
