"""Stage decontaminate: training documents without the test items that the cell is measured on."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.axes.corpus import Split
from harness.axes.evaluator import Evaluator
from harness.data import documents
from harness.data.item_texts import ItemTexts
from harness.data.overlap import Overlap
from harness.errors import ConfigError, DataError
from harness.hookspecs import hookimpl
from harness.method import Choice
from harness.registry.known import registry
from harness.stage import Choices, Stage, Work

if TYPE_CHECKING:
    from harness.compose import Cell

DROPPED = "dropped.jsonl"
"""Which documents went, and which items they share text with."""


class Decontaminate(Stage):
    """Drops training documents that share word n-grams with test items of the cell's evaluators.

    A cell whose evaluators measure no text, or generate it, has no such stage. The key holds what the items
    are, not how they are measured: a limit or a batch size trains no other model.

    Paper: Brown et al. 2020, arXiv:2005.14165, appendix C
    Differs: the whole document goes, as in GPT-3's first attempt, not 200 characters on each side; what more
        than `max_documents` documents share is a common phrase in held-out documents alone, as benchmarks
        have none
    Raises: DataError if nothing is left to train on
    """

    name = "decontaminate"
    after = ("corpus",)
    before = ("tokenizer",)
    axes = ("evaluator",)
    needs = ("documents",)
    produces = "documents"
    seeded = False

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        enabled: bool = True
        """Whether to do it; where not, the report says so."""
        ngram: int = 13
        """Words of an n-gram; items of 8 words or more that are shorter are looked for as a whole."""
        max_documents: int = 10
        """Training documents that may share an n-gram with held-out documents of the corpus before it counts
        as a common phrase, which is no leak."""

        def __post_init__(self) -> None:
            for key in ("ngram", "max_documents"):
                if getattr(self, key) < 1:
                    raise ConfigError(f"decontaminate.{key}={getattr(self, key)} must be at least 1")

    @classmethod
    def active(cls, cell: Cell) -> bool:
        measures = any(registry().stage(stage).produces == "evaluation" for stage in cell.stages)
        return (
            measures and cell.stage_config(cls.name).enabled and bool(item_texts(cell.choices("evaluator")))
        )

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        """Where the items' texts come from, in place of the evaluators."""
        chosen = choices["evaluator"]
        return {"item_texts": item_texts(chosen if isinstance(chosen, tuple) else (chosen,))}

    def run(self, work: Work) -> dict[str, Any]:
        directory = work.inputs["documents"].path
        sources: dict[str, tuple[Overlap, bool]] = {}
        for choice in work.several("item_texts"):
            source: ItemTexts = choice.build()
            texts = source.texts(partial(documents.iterate, directory))
            sources[source.name] = Overlap(texts, ngram=work.config.ngram), source.common_phrases
        seen, leaks = found(directory, sources, most=work.config.max_documents)
        with (work.out / DROPPED).open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps({"id": name, "shared_with": why}) + "\n" for name, why in leaks.items()
            )
        facts = self.kept(work, set(leaks))
        if not facts["num_documents"].get(Split.train.value):
            raise DataError(
                f"decontaminate drops all {seen} training documents, as they share text with test items; "
                "train on other text, or set decontaminate.enabled=false"
            )
        facts["decontaminated"] = {
            "seen": seen,
            "dropped": len(leaks),
            "ngram": work.config.ngram,
            "by_source": dict(Counter(why for reasons in leaks.values() for why in reasons)),
            "item_ngrams": {name: len(overlap) for name, (overlap, _) in sources.items()},
        }
        facts["effects"] = {"decontaminate": {"seen": seen, "dropped": len(leaks)}}
        return facts

    def kept(self, work: Work, dropped: set[str]) -> dict[str, Any]:
        """Write the documents that stay; where all do, they are those of the input and not written again."""
        source = work.inputs["documents"]
        if dropped:
            stay = (document for document in documents.iterate(source.path) if document.id not in dropped)
            return documents.write(work.out, stay)
        _link(source.path / documents.FILE, work.out / documents.FILE)
        return {key: source.facts[key] for key in ("num_documents", "num_bytes", "sha256")}


def item_texts(evaluators: Iterable[Choice]) -> tuple[Choice, ...]:
    """What evaluators' items come from, each kind once, in an order that is not theirs."""
    kinds: dict[str, list[Choice]] = {}
    for choice in evaluators:
        if issubclass(choice.method, Evaluator):
            for source in choice.method.item_texts(choice.config):
                kinds.setdefault(source.method.name, []).append(source)
    return tuple(_joined(kinds[name]) for name in sorted(kinds))


def found(
    directory: Path, sources: dict[str, tuple[Overlap, bool]], *, most: int
) -> tuple[int, dict[str, list[str]]]:
    """Number of training documents, and those that leak: id -> names of the sources they share text with.

    Which phrases are common is known once all documents were read: those that hold one are read again.
    """
    spread = {name: np.zeros(len(overlap), np.int32) for name, (overlap, common) in sources.items() if common}
    leaks: dict[str, list[str]] = {}
    again: set[str] = set()
    seen = 0
    for document in documents.iterate(directory, Split.train):
        seen += 1
        for name, (overlap, _) in sources.items():
            own = np.unique(overlap.of(document.text))
            if not len(own):
                continue
            if name in spread:
                spread[name][own] += 1
                again.add(document.id)
            else:
                leaks.setdefault(document.id, []).append(name)
    for document in documents.iterate(directory, Split.train) if again else ():
        for name, counts in spread.items() if document.id in again else ():
            if (counts[sources[name][0].of(document.text)] <= most).any():
                leaks.setdefault(document.id, []).append(name)
    return seen, leaks


def _joined(choices: list[Choice]) -> Choice:
    """One choice of what several evaluators name: lists and mappings of their options together."""
    first = choices[0]
    values: dict[str, Any] = {}
    for option in fields(first.config):
        own = [getattr(choice.config, option.name) for choice in choices]
        if isinstance(own[0], list):
            values[option.name] = sorted({entry for entries in own for entry in entries})
        elif isinstance(own[0], dict):
            values[option.name] = {key: entry for entries in own for key, entry in sorted(entries.items())}
        else:
            values[option.name] = own[0]
    return Choice(axis=first.axis, method=first.method, config=first.method.Config(**values))


def _link(source: Path, target: Path) -> None:
    """The same file under a second name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Decontaminate]
