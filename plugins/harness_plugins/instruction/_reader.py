"""What readers of instruction files share: path, splits, and the small sample that shows the format."""

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from harness import (
    ROWS,
    ConfigError,
    Conversation,
    DataError,
    Document,
    Instruction,
    OnError,
    Role,
    Split,
    Turn,
    check_limits,
    count_unreadable,
    listed,
    numbered_rows,
    path_ref,
    plain_text,
    stem,
)

NO_ANSWER = "without an answer"
SHORTENED = "that lost turns around a gap"

FIRST = 16
"""Entries of a file by which a plan knows its format."""

Parsed = tuple[str, list[Turn]] | tuple[str, list[Turn], list[Mapping[str, Any]]]
"""Source and turns of one conversation, and the tools it may call."""


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
        path: str = path_ref(suffixes=ROWS, required=True)
        """File, folder or pattern of .json, .jsonl, .ndjson (also .gz, .bz2, .xz, .zst), .parquet and .arrow
        files; required."""
        validation_path: str = path_ref(suffixes=ROWS)
        """Files whose conversations are for validation; then none of `path` is."""
        test_path: str = path_ref(suffixes=ROWS)
        """Files whose conversations are for testing; then none of `path` is."""
        validation_share: float = 0.05
        """Share of prompts held out for validation (0 to 1)."""
        test_share: float = 0.05
        """Share of prompts held out for test (0 to 1)."""
        max_conversations: int | None = None
        """Conversations to read; null = all."""
        on_error: OnError = OnError.fail
        """fail | skip: entries that cannot be read end the run, or are left out, counted, the first named."""

        def __post_init__(self) -> None:
            if (
                min(self.validation_share, self.test_share) < 0
                or self.validation_share + self.test_share >= 1
            ):
                raise ConfigError("instruction.validation_share and test_share must be >= 0 and sum below 1")
            check_limits(self, "instruction", "max_conversations")

    config: Config

    @classmethod
    def trial(cls, directory: Path) -> Config:
        (directory / cls.sample_name).write_text(cls.sample)
        return cls.Config(path=str(directory / cls.sample_name), validation_share=0.0, test_share=0.0)

    @classmethod
    def has_checks(cls, config: Any) -> bool:
        return False

    @classmethod
    def idle(cls, config: Any) -> Mapping[str, str]:
        return {
            f"{split}_share": f"instruction.{split}_path names the files that are held out"
            for split in (Split.validation, Split.test)
            if getattr(config, f"{split}_path")
        }

    @classmethod
    def check_files(cls, config: Any) -> None:
        reader = cls(config)
        for option in ("path", "validation_path", "test_path"):
            found = [reader._starts(file) for _, file in reader._files(option)]
            if found and not any(found):
                raise DataError(f"instruction.{option}={getattr(config, option)} holds no entry")

    @abstractmethod
    def parse(self, rows: Iterator[dict[str, Any]]) -> Iterator[Parsed | None]:
        """Source and turns of each conversation; None for an entry that holds none, by the format's rules."""
        raise NotImplementedError

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        yield from islice(self._read("path", None), self.config.max_conversations)
        for split in (Split.validation, Split.test):
            yield from self._read(f"{split}_path", split)

    def _read(self, option: str, split: Split | None) -> Iterator[Conversation]:
        """Conversations of files, of a given split or by a hash of their prompts."""
        for inner, file in self._files(option):
            place = stem(inner) if split is None else f"{split}/{stem(inner)}"
            damaged = count_unreadable(self.config.on_error, self.left_out)
            for number, parsed in enumerate(self._parsed(_placed(file, damaged), damaged)):
                if parsed is None:
                    continue
                source, given, *tools = parsed
                turns = answered(given)
                if not turns:
                    self._count(NO_ANSWER)
                    continue
                if len(turns) < len(given):
                    self._count(SHORTENED)
                yield Conversation(
                    id=f"{self.name}/{place}/{number}",
                    turns=tuple(turns),
                    source=source,
                    split=split or self._split(turns),
                    tools=tuple(tools[0]) if tools else (),
                )

    def _parsed(
        self, rows: Iterator[dict[str, Any]], damaged: Callable[[str], None] | None
    ) -> Iterator[Parsed | None]:
        """What the format says of entries; parsing goes on behind one that is left out."""
        while True:
            try:
                yield from self.parse(rows)
                return
            except DataError as error:
                if damaged is None:
                    raise
                damaged(str(error))

    def _files(self, option: str) -> Iterator[tuple[str, Path]]:
        """The files of an option, by the names that count below a folder; none where it may be empty and is.

        Raises: DataError where they are not there
        """
        path = getattr(self.config, option)
        folder = Path(path).expanduser().is_dir()
        given = path or option == "path"
        found = listed(path, option=f"instruction.{option}", suffixes=ROWS) if given else {}
        for name, file in found.items():
            yield name.partition("/")[2] if folder else name, file

    def _starts(self, file: Path) -> bool:
        """Whether a file has an entry; its first ones are parsed.

        Raises: DataError where they have another format
        """
        damaged = count_unreadable(self.config.on_error, {})
        rows = list(islice(_placed(file, damaged), FIRST))
        for _ in self._parsed(iter(rows), damaged):
            pass
        return bool(rows)

    def _count(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def _split(self, turns: Sequence[Turn]) -> Split:
        prompt = "\0".join(turn.text for turn in turns[:-1])
        position = int.from_bytes(hashlib.sha256(prompt.encode()).digest()[:8], "big") / 2**64
        test = 0.0 if self.config.test_path else self.config.test_share
        validation = 0.0 if self.config.validation_path else self.config.validation_share
        if position < test:
            return Split.test
        return Split.validation if position < test + validation else Split.train


def answered(turns: Sequence[Turn]) -> list[Turn]:
    """Turns from the user's first to the last answer in a row without gaps; none where there is no answer.

    A tool speaks after the assistant has called it, then the assistant again.
    """
    kept: list[Turn] = []
    for turn in turns:
        if turn.role is Role.system and not kept:
            kept.append(turn)
            continue
        last = kept[-1] if kept and kept[-1].role is not Role.system else None
        speaks = turn.text.strip() or turn.tool_calls or turn.role is Role.tool  # a tool may return nothing
        if turn.role not in _next(last) or not speaks:
            if last is not None:
                break
            continue
        kept.append(turn)
    while kept and (kept[-1].role is not Role.assistant):
        kept.pop()
    return kept


def _next(last: Turn | None) -> tuple[Role, ...]:
    """Who may speak after a turn."""
    if last is None:
        return (Role.user,)
    if last.role is Role.assistant:
        return (Role.tool,) if last.tool_calls else (Role.user,)
    return (Role.tool, Role.assistant) if last.role is Role.tool else (Role.assistant,)


def pair(prompt: str, answer: str) -> list[Turn]:
    """One question and its answer."""
    return [Turn(role=Role.user, text=prompt.strip()), Turn(role=Role.assistant, text=answer.strip())]


def text_of(row: dict[str, Any], key: str, *, default: str | None = None) -> str:
    """A text of an entry, or a number as one; empty where null stands there.

    Raises: DataError naming the entry where it has no such key, or no text there
    """
    value = row.get(key, default) if default is not None or key in row else ()
    text = plain_text(value)
    if text is None:
        keys = sorted(k for k in row if k != "#")
        raise DataError(f"{row['#']}: no text under '{key}', only {keys}; try the reader of another format")
    return text


def _placed(file: Path, damaged: Callable[[str], None] | None) -> Iterator[dict[str, Any]]:
    """Entries with their place under `#`, for messages."""
    for number, row in numbered_rows(file, damaged=damaged):
        yield {**row, "#": f"{file}, entry {number}"}
