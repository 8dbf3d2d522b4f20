"""Preferences: pairs, or labelled answers, that people or models have judged, from files."""

import hashlib
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any

from harness import (
    ROWS,
    ConfigError,
    Conversation,
    DataError,
    Feedback,
    Method,
    OnError,
    Preference,
    Split,
    as_text,
    check_limits,
    count_unreadable,
    hookimpl,
    listed,
    numbered_rows,
    path_ref,
    stem,
)
from harness_plugins.feedback._formats import LeftOut, Pair, parse

FIRST = 16
"""Entries of a file by which a plan knows its format."""


class Preferences(Feedback):
    """Preferences of a user's own, in any of the formats in use, each entry by the keys it has.

    {prompt, chosen, rejected} and {chosen, rejected} as text or messages (TRL, UltraFeedback binarized), HH's
    pairs of dialogues, UltraFeedback's scored completions (best against worst), and {prompt, completion,
    label} (KTO), also by the names of OpenAI's, Argilla's and LLaMA-Factory's files. The prompt may be called
    question, instruction or input too, and a `system` may stand beside it. Prompts of several turns stay
    whole. Pairs of equal or empty answers are left out, counted.
    Paper: Bai et al. 2022, arXiv:2204.05862 (HH); Cui et al. 2023, arXiv:2310.01377 (UltraFeedback)
    Raises: DataError naming file and entry of what has none of the formats
    """

    name = "preferences"
    reads_conversations = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Feedback.Config):
        path: str = path_ref(suffixes=ROWS, required=True)
        """File, folder or pattern of .json, .jsonl, .ndjson (also .gz, .bz2, .xz, .zst), .parquet and .arrow
        files; required."""
        validation_path: str = path_ref(suffixes=ROWS)
        """Files whose preferences are for validation; then none of `path` is."""
        validation_share: float = 0.05
        """Share of prompts held out for validation (0 to 1)."""
        max_preferences: int | None = None
        """Training preferences to read; null = all."""
        on_error: OnError = OnError.fail
        """fail | skip: entries that cannot be read end the run, or are left out, counted, the first named."""

        def __post_init__(self) -> None:
            if not 0 <= self.validation_share < 1:
                raise ConfigError(f"feedback.validation_share={self.validation_share} must lie in [0, 1)")
            check_limits(self, "feedback", "max_preferences")

    config: Config

    @classmethod
    def trial(cls) -> Config:
        """Three pairs in a file of their own."""
        rows = [
            {"prompt": f"Name a {what}.", "chosen": good, "rejected": "No."}
            for what, good in (("river", "The Elbe."), ("prime", "7"), ("fish", "A carp."))
        ]
        file = Path(tempfile.gettempdir()) / "harness-trial-preferences.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return cls.Config(path=str(file), validation_share=0.0)

    @classmethod
    def idle(cls, config: Any) -> Mapping[str, str]:
        why = "feedback.validation_path names the files that are held out"
        return {"validation_share": why} if config.validation_path else {}

    @classmethod
    def check_files(cls, config: Any) -> None:
        damaged = count_unreadable(config.on_error, {})
        passed = (LeftOut, DataError) if damaged else (LeftOut,)
        for option in ("path", "validation_path"):
            files = [file for _, file in cls(config)._files(option)]
            first = list(_first_entries(files, damaged))
            if files and not first:
                raise DataError(f"feedback.{option}={getattr(config, option)} holds no entry")
            for row, where in first:
                with suppress(*passed):
                    list(parse(row, where))

    @classmethod
    def labels_single_answers(cls, config: Any) -> bool:
        with suppress(DataError):  # the check of the files says what
            files = (file for _, file in cls(config)._files("path"))
            return _labels_alone(tuple((file, file.stat().st_mtime_ns) for file in files))
        return False

    def preferences(self, conversations: Sequence[Conversation], seed: int) -> Iterator[Preference]:
        left = math.inf if self.config.max_preferences is None else self.config.max_preferences
        for preference in self._read("path", None):
            if preference.split is Split.train:
                left -= 1
            if left < 0:
                break
            yield preference
        yield from self._read("validation_path", Split.validation)

    def _files(self, option: str) -> Iterator[tuple[str, Path]]:
        """The files of an option, by the names that count below a folder; none where it may be empty and is.

        Raises: DataError where they are not there
        """
        path = getattr(self.config, option)
        folder = Path(path).expanduser().is_dir()
        given = path or option == "path"
        found = listed(path, option=f"feedback.{option}", suffixes=ROWS) if given else {}
        for name, file in found.items():
            yield name.partition("/")[2] if folder else name, file

    def _read(self, option: str, split: Split | None) -> Iterator[Preference]:
        damaged = count_unreadable(self.config.on_error, self.left_out)
        for inner, file in self._files(option):
            for number, row in numbered_rows(file, damaged=damaged):
                try:
                    pairs = list(parse(row, f"{file}, entry {number}"))
                except LeftOut as why:
                    self._count(str(why))
                    continue
                except DataError as error:
                    if damaged is None:
                        raise
                    damaged(str(error))
                    continue
                if not pairs:
                    self._count("no answer is better than another")
                for place, pair in enumerate(pairs):
                    if reason := _useless(pair):
                        self._count(reason)
                        continue
                    yield Preference(
                        id=f"{option}/{stem(inner)}/{number}/{place}",
                        prompt=pair.prompt,
                        chosen=pair.chosen,
                        rejected=pair.rejected,
                        split=split or self._split(pair),
                    )

    def _count(self, reason: str) -> None:
        self.left_out[reason] = self.left_out.get(reason, 0) + 1

    def _split(self, pair: Pair) -> Split:
        digest = hashlib.sha256(as_text(pair.prompt).encode()).digest()
        share = 0.0 if self.config.validation_path else self.config.validation_share
        return Split.validation if int.from_bytes(digest[:8], "big") / 2**64 < share else Split.train


@cache
def _labels_alone(files: tuple[tuple[Path, int], ...]) -> bool:
    """Whether files as they were at a time label single answers; every cell of a plan asks it."""
    found: list[Pair] = []
    with suppress(DataError):
        for row, where in _first_entries((file for file, _ in files), count_unreadable(OnError.skip, {})):
            with suppress(LeftOut, DataError):
                found += parse(row, where)
    return bool(found) and not any(pair.chosen and pair.rejected for pair in found)


def _first_entries(
    files: Iterable[Path], damaged: Callable[[str], None] | None
) -> Iterator[tuple[Mapping[str, Any], str]]:
    """The entries by which the format of files is known, and where each stands."""
    for file in files:
        for number, row in islice(numbered_rows(file, damaged=damaged), FIRST):
            yield row, f"{file}, entry {number}"


def _useless(pair: Pair) -> str:
    """Why a pair teaches nothing; empty where it does."""
    chosen, rejected = pair.chosen.strip(), pair.rejected.strip()
    if not as_text(pair.prompt).strip():
        return "the prompt is empty"
    if not chosen and not rejected:
        return "both answers are empty"
    return "the answers are equal" if chosen == rejected else ""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Preferences]
