"""What readers of instruction files share: path, splits, and the small sample that shows the format."""

import hashlib
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from harness import (
    ConfigError,
    Conversation,
    DataError,
    Document,
    Instruction,
    Role,
    Split,
    Turn,
    path_ref,
    read_rows,
)

Parsed = tuple[str, list[Turn]]
"""Source and turns of one conversation."""


class Reader(Instruction):
    """Conversations from files of one published format.

    Differs: the split is by a hash of the prompt, since most of these sets have none
    Raises: DataError naming file and entry of what does not have the format
    """

    sample: ClassVar[str]
    """A file of this format, small; the conformance suite reads it."""
    sample_name: ClassVar[str] = "sample.json"

    @dataclass(frozen=True, kw_only=True)
    class Config(Instruction.Config):
        path: str = path_ref(suffixes=(".json", ".jsonl", ".json.gz", ".jsonl.gz"), required=True)
        """File, folder or pattern of .json and .jsonl files (also .gz); required."""
        validation_share: float = 0.05
        """Share of prompts held out for validation (0 to 1)."""
        test_share: float = 0.05
        """Share of prompts held out for test (0 to 1)."""
        max_conversations: int = 0
        """Conversations to read; 0 reads all."""

        def __post_init__(self) -> None:
            if (
                min(self.validation_share, self.test_share) < 0
                or self.validation_share + self.test_share >= 1
            ):
                raise ConfigError("instruction.validation_share and test_share must be >= 0 and sum below 1")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        (directory / cls.sample_name).write_text(cls.sample)
        return cls.Config(path=str(directory / cls.sample_name), validation_share=0.0, test_share=0.0)

    @abstractmethod
    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        """Source and turns of each conversation; None for an entry that holds none, by the format's rules."""
        raise NotImplementedError

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        left = self.config.max_conversations or float("inf")
        for file in self.files(self.config, "path"):
            stem = file.name.split(".")[0]
            for number, parsed in enumerate(self.parse(_placed(file))):
                turns = answered(parsed[1]) if parsed else []
                if not parsed or not turns:
                    continue
                if left < 1:
                    return
                left -= 1
                yield Conversation(
                    id=f"{self.name}/{stem}/{number}",
                    turns=tuple(turns),
                    source=parsed[0],
                    split=self._split(turns),
                )

    def _split(self, turns: Sequence[Turn]) -> Split:
        prompt = "\0".join(turn.text for turn in turns[:-1])
        position = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
        if position < self.config.test_share:
            return Split.test
        held_out = self.config.test_share + self.config.validation_share
        return Split.validation if position < held_out else Split.train


def answered(turns: Sequence[Turn]) -> list[Turn]:
    """Turns from the user's first to the last answer in a row without gaps; none where there is no answer."""
    kept: list[Turn] = []
    for turn in turns:
        if turn.role is Role.system and not kept:
            kept.append(turn)
            continue
        spoken = [t for t in kept if t.role is not Role.system]
        expected = Role.user if len(spoken) % 2 == 0 else Role.assistant
        if turn.role is not expected or not turn.text.strip():
            if spoken:
                break
            continue
        kept.append(turn)
    while kept and kept[-1].role is not Role.assistant:
        kept.pop()
    return kept


def pair(prompt: str, answer: str) -> list[Turn]:
    """One question and its answer."""
    return [Turn(role=Role.user, text=prompt.strip()), Turn(role=Role.assistant, text=answer.strip())]


def text_of(row: dict[str, Any], key: str, *, default: str | None = None) -> str:
    """A text of an entry.

    Raises: DataError naming the entry where there is none
    """
    value = row.get(key, default)
    if not isinstance(value, str):
        keys = sorted(k for k in row if k != "#")
        raise DataError(f"{row['#']}: no text under '{key}', only {keys}; try the reader of another format")
    return value


def _placed(file: Path) -> Iterator[dict[str, Any]]:
    """Entries with their place under `#`, for messages."""
    for number, row in enumerate(read_rows(file)):
        yield {**row, "#": f"{file}, entry {number}"}
