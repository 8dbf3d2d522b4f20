"""The files that a stage's options name: their content for its key, and what is wrong with them."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.compose.schema import stage_key
from harness.errors import ChangedError, ConfigError, DataError, HarnessError, StoreError
from harness.method import Choice, Method, Problem
from harness.paths import declares, named
from harness.registry.modules import blaming
from harness.store.contents import Contents
from harness.store.files import read_json, write_json

if TYPE_CHECKING:
    from harness.compose import Cell
    from harness.stage import Choices

CACHE = Path("cache", "contents.json")
"""Below the store: what is known of files outside of it."""
MISSING = "missing"
"""Stands in a key for files that are not there; such a cell is refused."""


@dataclass
class Files:
    """Names and content of the files that options name, as one plan saw them: each is looked at once."""

    cache: Path
    _seen: dict[str, dict[str, str]] = field(default_factory=dict)
    _changed: bool = False

    def __post_init__(self) -> None:
        self._contents = Contents(self.cache)
        self._read: dict[str, str] = {}
        with contextlib.suppress(OSError, ValueError):
            self._read = dict.fromkeys(read_json(self._reads, dict), "")

    def of(self, stage: str, config: Any, choices: Choices) -> dict[str, str]:
        """Of all files that a stage reads, by the option that names them; of an option that holds a name, the
        name. What a method reads besides stands under its own key, e.g. `corpus`.
        """
        # The key of a stage asks the registry, which loads every plugin: not for options that name no file.
        found = self._named(stage_key(stage), config) if declares(config.__class__) else {}
        for choice in flat(choices):
            found |= self._of_choice(choice)
        return found

    def misread(self, choice: Choice, *, code: str) -> str:
        """What a choice's reader says against the first entries of its files; empty where it reads them.

        That it reads them is remembered by their content and by the hash of its code.
        """
        if choice.method.check_files.__func__ is Method.check_files.__func__:  # type: ignore[attr-defined]
            return ""
        content = self._of_choice(choice)
        if not content or any(text.endswith(MISSING) for text in content.values()):
            return ""
        asked = json.dumps([choice.method.__qualname__, repr(choice.config), content, code])
        name = hashlib.sha256(asked.encode()).hexdigest()
        if name not in self._read:
            self._read[name] = _refusal(choice)
            self._changed |= not self._read[name]
        return self._read[name]

    def save(self) -> None:
        """Remember what was hashed, and what was read without fault."""
        self._contents.save()
        if self._changed:
            with contextlib.suppress(OSError, StoreError):
                write_json(self._reads, {name: "" for name, fault in self._read.items() if not fault})
                self._changed = False

    @property
    def _reads(self) -> Path:
        return self.cache.with_name("read.json")

    def _of_choice(self, choice: Choice) -> dict[str, str]:
        found = self._named(owner(choice), choice.config)
        if choice.method.reads.__func__ is not Method.reads.__func__:  # type: ignore[attr-defined]
            found = found | self._besides(owner(choice), choice)
        return found

    def _named(self, where: str, config: Any) -> dict[str, str]:
        if not declares(config.__class__):
            return {}
        memo = f"{where} {config!r}"
        if memo not in self._seen:
            self._seen[memo] = {}
            for item in named(config):
                text = self._content(item.files, where=where) if item.is_path else item.value
                self._seen[memo][f"{where}.{item.option}"] = text
        return self._seen[memo]

    def _besides(self, where: str, choice: Choice) -> dict[str, str]:
        memo = f"{choice.method.__qualname__} {choice.config!r}"
        if memo not in self._seen:
            self._seen[memo] = {where: self._content(choice.method.reads, choice.config)}
        return self._seen[memo]

    def _content(self, files: Any, *args: Any, **options: Any) -> str:
        """`pages.jsonl <hash>`, `12 files <hash>`."""
        try:
            found: Mapping[str, Path] = files(*args, **options)
            label = next(iter(found)) if len(found) == 1 else f"{len(found)} files"
            return f"{label} {self._contents.digest(found)}"
        except (HarnessError, OSError):
            return MISSING


def _refusal(choice: Choice) -> str:
    """What a choice says against its files; empty for nothing."""
    try:
        with blaming(f"check_files of {choice.axis}={choice.method.name} ({choice.method.__module__})"):
            choice.method.check_files(choice.config)
    except (DataError, ConfigError, OSError) as error:
        return str(error)
    return ""


def check_unchanged(planned: Mapping[str, str], here: Mapping[str, str]) -> None:
    """Refuse to make a result of other files than its key names.

    Raises: ChangedError
    """
    for option in sorted({*planned, *here}):
        if planned.get(option) != here.get(option):
            raise ChangedError(
                f"{option}: what it names has changed since the plan was made; run the same command again"
            )


def missing(cell: Cell, chosen: Iterable[Choice], stages: Iterable[str]) -> Iterator[Problem]:
    """Options of a cell that name files which are not there."""
    configs = [(stage_key(stage), cell.stage_config(stage)) for stage in stages]
    configs += [(owner(choice), choice.config) for choice in chosen]
    for where, config in configs:
        for item in named(config) if declares(config.__class__) else ():
            option = f"{where}.{item.option}"
            try:
                if item.is_path:
                    item.files(where=where)
            except (DataError, OSError) as error:
                yield Problem(where=option, message=str(error).removeprefix(option).lstrip(": "))


def owner(choice: Choice) -> str:
    """The prefix of a choice's option keys: `corpus`, `evaluator.lm_eval`."""
    return f"{choice.axis}.{choice.method.name}" if choice.method.many else choice.axis


def flat(choices: Choices) -> Iterator[Choice]:
    """All choices, those of list axes in order."""
    for value in choices.values():
        yield from value if isinstance(value, tuple) else (value,)
