"""Training data that shares text with the test items of the cell's own evaluators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from harness.axes.corpus import Document, Split
from harness.axes.evaluator import Evaluator
from harness.axes.instruction import Conversation, as_turns
from harness.axes.reward import Preference
from harness.data import documents
from harness.data.item_texts import HeldOutDocuments, ItemTexts
from harness.data.lineage import Lineage
from harness.data.overlap import Overlap
from harness.errors import DataError
from harness.method import Choice
from harness.stage import Choices, Work

if TYPE_CHECKING:
    from pathlib import Path

NGRAM = 13
"""Words of an n-gram; items of 8 words or more that are shorter are looked for as a whole."""
MOST = 10
"""Entries that may share an n-gram with running text before it counts as a common phrase."""
Sources = Mapping[str, tuple[Overlap, bool]]
"""Name -> n-grams, and whether its texts hold phrases that many entries rightly share."""
Texts = Callable[[], Iterable[tuple[str, str]]]
"""Gives (id, text) of all entries, as often as it is called."""
T = TypeVar("T", Conversation, Preference)


def with_item_texts(choices: Choices) -> Choices:
    """Where the items' texts come from, in place of the evaluators: how they are measured trains no other
    model.
    """
    chosen = choices["evaluator"]
    texts = item_texts(chosen if isinstance(chosen, tuple) else (chosen,))
    return {axis: choice for axis, choice in choices.items() if axis != "evaluator"} | {"item_texts": texts}


def item_texts(evaluators: Iterable[Choice]) -> tuple[Choice, ...]:
    """What evaluators' items come from, each kind once, in an order that is not theirs."""
    kinds: dict[str, list[Choice]] = {}
    for choice in evaluators:
        if issubclass(choice.method, Evaluator):
            for source in choice.method.item_texts(choice.config):
                kinds.setdefault(source.method.name, []).append(source)
    return tuple(_joined(kinds[name]) for name in sorted(kinds))


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


def sources_of(choices: Iterable[Choice], directory: Path | None, *, ngram: int = NGRAM) -> Sources:
    """The n-grams of all items; held-out documents have none where there is no corpus."""
    found: dict[str, tuple[Overlap, bool]] = {}
    for choice in choices:
        if directory is None and issubclass(choice.method, HeldOutDocuments):
            continue
        source: ItemTexts = choice.build()
        texts = source.texts(_none if directory is None else partial(documents.iterate, directory))
        found[source.name] = Overlap(texts, ngram=ngram), source.common_phrases
    return found


def _none(split: Split) -> Iterator[Document]:
    return iter(())


class Shared(NamedTuple):
    """What entries have in common with items."""

    seen: int
    """All entries."""
    leaks: dict[str, list[str]]
    """Those that leak: id -> names of the sources they share text with."""
    short: int
    """Those that are, word for word, an item too short to be looked for; "Thank you." leaks nothing."""


def shared(texts: Texts, sources: Sources, *, most: int = MOST) -> Shared:
    """The entries that share text with items.

    Which phrases are common is known once all entries were read: those that hold one are read again.
    """
    spread = {name: np.zeros(len(overlap), np.int32) for name, (overlap, common) in sources.items() if common}
    leaks: dict[str, list[str]] = {}
    again: set[str] = set()
    seen = short = 0
    for entry, text in texts():
        seen += 1
        short += any(overlap.is_short(text) for overlap, _ in sources.values())
        for name, (overlap, _) in sources.items():
            own = np.unique(overlap.of(text))
            if not len(own):
                continue
            if name in spread:
                spread[name][own] += 1
                again.add(entry)
            else:
                leaks.setdefault(entry, []).append(name)
    for entry, text in texts() if again else ():
        for name, counts in spread.items() if entry in again else ():
            if (counts[sources[name][0].of(text)] <= most).any():
                leaks.setdefault(entry, []).append(name)
    return Shared(seen, leaks, short)


def counts(found: Shared, sources: Sources, *, ngram: int) -> dict[str, Any]:
    """The facts about what was dropped, and what is too short to be."""
    return {
        "seen": found.seen,
        "dropped": len(found.leaks),
        "short_alike": found.short,
        "ngram": ngram,
        "by_source": dict(Counter(why for reasons in found.leaks.values() for why in reasons)),
        "item_ngrams": {name: len(overlap) for name, (overlap, _) in sources.items()},
    }


def tell(lineage: Lineage, leaks: Mapping[str, Sequence[str]], *, by: str) -> None:
    """A line for each entry that was dropped."""
    for name, why in leaks.items():
        lineage.add(name, did="dropped", by=by, why=f"shares text with {', '.join(why)}")


def without_test_items(work: Work, entries: Sequence[T]) -> tuple[list[T], dict[str, Any]]:
    """Conversations or preferences of the training split that share no text with test items, all of the
    other splits, and facts about what was dropped; no facts where nothing was compared.

    Raises: DataError where none is left to train on
    """
    corpus = work.inputs.get("documents")
    sources = (
        {}
        if not work.config.decontaminate
        else sources_of(work.several("item_texts"), None if corpus is None else corpus.path)
    )
    if not sources:
        return list(entries), {}
    train = [entry for entry in entries if entry.split is Split.train]
    found = shared(lambda: ((entry.id, _text(entry)) for entry in train), sources)
    leaks = found.leaks
    if train and len(leaks) == len({entry.id for entry in train}):
        raise DataError(
            f"all {found.seen} training entries of {work.stage} share text with test items; train on others, "
            f"or set {work.stage}.decontaminate=false"
        )
    with Lineage(work.out) as lineage:
        tell(lineage, leaks, by=f"{work.stage}.decontaminate")
    kept = [entry for entry in entries if entry.split is not Split.train or entry.id not in leaks]
    return kept, {"decontaminated": counts(found, sources, ngram=NGRAM)}


def _text(entry: Conversation | Preference) -> str:
    """All that is said, so that a question counts that an answer only completes."""
    if isinstance(entry, Conversation):
        return "\n".join(turn.text for turn in entry.turns)
    said = (turn.text for turn in as_turns(entry.prompt))
    return "\n".join([*said, entry.chosen, entry.rejected])
