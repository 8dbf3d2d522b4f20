"""Mixture: several instruction sources as one, with caps and shares."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness import (
    Choice,
    ConfigError,
    Conversation,
    DataError,
    Document,
    Instruction,
    Method,
    Split,
    choose,
    hookimpl,
    named,
)


class Mixture(Instruction):
    """The conversations of several sources; `instruction=[task,chat]` is this method.

    A cap bounds a source, shares set how many training conversations come from each (as many as there are
    without repeating one). A training prompt that another source holds out is left out, counted.
    Paper: survey section 5.1.4 (mixtures are plain concatenations); Wei et al. 2021, arXiv:2109.01652 (caps)
    Raises: ConfigError naming the source at fault, DataError where one gives nothing to train on
    """

    name = "mixture"

    @dataclass(frozen=True, kw_only=True)
    class Config(Instruction.Config):
        sources: list[str] = field(default_factory=lambda: ["task", "chat"])
        """Instruction methods that are mixed."""
        options: dict[str, Any] = field(default_factory=dict)
        """Options of each, e.g. {task: {num_items: 100}}."""
        caps: dict[str, int] = field(default_factory=dict)
        """Most training conversations of a source."""
        shares: dict[str, float] = field(default_factory=dict)
        """Share of the training conversations (not tokens) of each source, summing to 1; empty takes all."""

        def __post_init__(self) -> None:
            if not self.sources or len(set(self.sources)) < len(self.sources) or "mixture" in self.sources:
                raise ConfigError(f"instruction.sources={self.sources} must name other sources, each once")
            for option in ("options", "caps", "shares"):
                unknown = sorted(set(getattr(self, option)) - set(self.sources))
                if unknown:
                    raise ConfigError(f"instruction.{option} names {unknown}; sources are {self.sources}")
            if self.shares and (
                set(self.shares) != set(self.sources)
                or min(self.shares.values()) <= 0
                or abs(sum(self.shares.values()) - 1) > 1e-6
            ):
                raise ConfigError("instruction.shares must give each source a positive share, summing to 1")
            if any(cap < 1 for cap in self.caps.values()):
                raise ConfigError("instruction.caps must be at least 1")

    config: Config

    @classmethod
    def has_checks(cls, config: Any) -> bool:
        return any(part.method.has_checks(part.config) for part in parts(config).values())  # type: ignore[attr-defined]

    @classmethod
    def code_of(cls, config: Any) -> Iterable[str]:
        yield cls.__module__
        for part in parts(config).values():
            yield from part.method.code_of(part.config)

    @classmethod
    def reads(cls, config: Any) -> Mapping[str, Path]:
        found: dict[str, Path] = {}
        for name, part in parts(config).items():
            for path in named(part.config):
                files = path.files(where=f"instruction.options.{name}") if path.is_path else {}
                found |= {f"{name}.{path.option}/{inner}": file for inner, file in files.items()}
        return found

    @classmethod
    def check_files(cls, config: Any) -> None:
        for part in parts(config).values():
            part.method.check_files(part.config)

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: Any) -> Iterable[Any]:
        for part in parts(config).values():
            yield from part.method.check(part.config, cell, meta_model)

    def conversations(self, documents: Sequence[Document], seed: int) -> Iterator[Conversation]:
        training: dict[str, list[Conversation]] = {}
        held_out: list[Conversation] = []
        for name, part in parts(self.config).items():
            source = part.build()
            found = [replace(c, id=f"{name}:{c.id}") for c in source.conversations(documents, seed)]
            training[name] = [c for c in found if c.split is Split.train]
            held_out += [c for c in found if c.split is not Split.train]
            for reason, count in source.left_out.items():
                self.left_out[f"{name}: {reason}"] = count
        tested = {_asked(c) for c in held_out}
        for name, found in training.items():
            kept = [c for c in found if _asked(c) not in tested]
            if len(kept) < len(found):
                self.left_out[f"{name}: held out by another source"] = len(found) - len(kept)
            if not kept:
                why = {k: v for k, v in self.left_out.items() if k.startswith(f"{name}: ")}
                raise DataError(
                    f"instruction.sources: '{name}' gives no training conversation ({why or 'it has none'}); "
                    "leave it out, or give it others"
                )
            training[name] = _some(kept, self.config.caps.get(name, len(kept)))
        for name, number in self._numbers({name: len(found) for name, found in training.items()}).items():
            yield from _some(training[name], number)
        yield from held_out

    def _numbers(self, sizes: Mapping[str, int]) -> dict[str, int]:
        """Training conversations of each source, in the asked shares."""
        shares = self.config.shares
        if not shares:
            return dict(sizes)
        total = min(sizes[name] / share for name, share in shares.items())
        return {name: round(total * share) for name, share in shares.items()}


def parts(config: Any) -> dict[str, Choice]:
    """The sources' choices by name."""
    where = "instruction.options"
    return {
        name: choose("instruction", name, config.options.get(name, {}), where=f"{where}.{name}")
        for name in config.sources
    }


def _asked(conversation: Conversation) -> tuple[str, ...]:
    return tuple(turn.text for turn in conversation.turns[:-1])


def _some(conversations: Sequence[Conversation], number: int) -> list[Conversation]:
    """A part of a given size, in order; smaller parts lie within larger ones."""
    if number >= len(conversations):
        return list(conversations)
    ranked = sorted(conversations, key=lambda c: hashlib.sha256(c.id.encode()).digest())
    chosen = {c.id for c in ranked[:number]}
    return [c for c in conversations if c.id in chosen]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Mixture]
