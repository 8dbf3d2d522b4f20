"""Which items a report shows side by side: a few, where the cells differ most, cut to a budget."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.report.record import Record
from harness.report.scored import Scored

ITEMS = 6
"""Items of a task that are shown."""
BUDGET = 1_200_000
"""Characters of answers on a page; more records show fewer items."""
LENGTH = 500
"""Characters of one text."""
NO_METRIC = frozenset({"bytes", "tokens", "length", "position"})


def score_columns(items: Scored) -> list[str]:
    """Numeric columns of samples that score an item."""
    return [c for c in items.numeric if c not in NO_METRIC]


def chosen_items(frames: Sequence[Scored], items: int) -> list[str]:
    """Items with text, half those whose score differs most over the cells, half the first."""
    first = frames[0]
    partly = [frame for frame in frames if frame is first or frame.lacks("prompt")]  # of committed reports
    with_text = [dict.fromkeys(frame.having("prompt")) for frame in partly]
    usable = [doc for doc in with_text[0] if all(doc in kept for kept in with_text)] or list(with_text[0])
    columns = score_columns(first)
    spread: dict[str, float] = {}
    if columns:
        docs = first.docs
        values_RD = np.stack([values_at(docs, f, columns[0]) for f in frames])
        known = ~np.isnan(values_RD).all(axis=0)
        variances = np.zeros(len(docs))
        variances[known] = np.nanvar(values_RD[:, known], axis=0)
        spread = dict(zip(docs.tolist(), variances.tolist(), strict=True))
    order = {doc: i for i, doc in enumerate(usable)}
    divided = sorted(usable, key=lambda doc: (-spread.get(doc, 0.0), order[doc]))[: items // 2]
    rest = [doc for doc in usable if doc not in divided][: items - len(divided)]
    return sorted({*divided, *rest}, key=lambda doc: order[doc])


def values_at(docs: np.ndarray[Any, Any], frame: Scored, column: str) -> np.ndarray[Any, Any]:
    """A column of numbers at some items; NaN for an item that the samples lack."""
    own, values = frame.docs, frame.numbers(column)
    if np.array_equal(own, docs):
        return values
    by_doc = dict(zip(own.tolist(), values.tolist(), strict=True))
    return np.array([by_doc.get(doc, np.nan) for doc in docs.tolist()])


def shown_items(records: Sequence[Record]) -> dict[str, list[str]]:
    """Task -> the items that a report of these records shows."""
    names = list(dict.fromkeys(name for r in records if r.status == "ok" for name in r.sample_names))
    items = max(2, min(ITEMS, BUDGET // max(1, len(records) * max(1, len(names)) * 300)))
    return {
        name: chosen_items(found, items)
        for name in names
        if (found := list(with_texts(records, name).values()))
    }


def with_texts(records: Sequence[Record], name: str) -> dict[int, Scored]:
    """Samples of a task that have prompts, by the place of their record."""
    found = {}
    for i, record in enumerate(records):
        frame = record.samples(name) if record.status == "ok" else None
        if frame is not None and "doc_hash" in frame and "prompt" in frame:
            found[i] = frame
    return found


def shown_samples(records: Sequence[Record], items: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Task -> items with prompt and target, and the answers and scores of each record by its index."""
    found: dict[str, Any] = {}
    for name, docs in items.items():
        shown: list[dict[str, str]] = []
        by: dict[int, list[Any]] = {}
        for i, frame in with_texts(records, name).items():
            places = {doc: row for row, doc in enumerate(frame.docs.tolist())}
            by[i] = answers_of(frame, [places.get(doc) for doc in docs])
            if not shown and all(doc in places for doc in docs):
                shown = [item_of(frame, places[doc], doc) for doc in docs]
        if shown:
            found[name] = {"items": shown, "by": by}
    return found


def item_of(frame: Scored, row: int, doc: str) -> dict[str, str]:
    target = frame.values("target")[row] if "target" in frame else None
    return {
        "doc": doc[:12],
        "prompt": cut(frame.values("prompt")[row], keep_end=True) or "",
        "target": cut(target) or "",
    }


def answers_of(frame: Scored, rows: Sequence[int | None]) -> list[dict[str, Any] | None]:
    """Answer and scores at some rows; None where an item was not scored."""
    scores = {column: frame.numbers(column) for column in score_columns(frame)}
    answers = frame.values("answer") if "answer" in frame else None
    return [
        None
        if row is None
        else {
            "answer": None if answers is None else cut(readable(answers[row])),
            "scores": {c: None if np.isnan(v[row]) else float(f"{v[row]:.4g}") for c, v in scores.items()},
        }
        for row in rows
    ]


def readable(answer: object) -> object:
    """An answer as a person reads it: of choices, the one chosen and what each was worth."""
    if not isinstance(answer, str) or not answer.startswith("[["):
        return answer
    try:
        worth = [float(likelihood) for likelihood, _ in json.loads(answer)]
    except (ValueError, TypeError):
        return answer
    chosen = int(np.argmax(worth))
    lines = [f"{'>' if i == chosen else ' '} {i}   {value:.2f}" for i, value in enumerate(worth)]
    return "\n".join([f"choice {chosen}  (log-likelihoods)", *lines])


def cut(value: object, *, keep_end: bool = False) -> str | None:
    """A text cut to its readable part; a prompt's end is what was asked."""
    if not isinstance(value, str):
        return None
    if len(value) <= LENGTH:
        return value
    return "... " + value[-LENGTH:] if keep_end else value[:LENGTH] + " ..."
