"""Items of the offline tasks, made from the corpus's test documents or generated; lm-eval calls these."""

from __future__ import annotations

import contextlib
import hashlib
import random
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from harness.axes.corpus import Document
from harness.errors import TaskError

ITEMS = 200
"""Items of a task where no limit is given."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What the offline tasks draw from."""

    documents: Sequence[Document]
    """Test documents, in the corpus's order; empty where the cell has no corpus."""
    limit: int | None = None


_SOURCE: ContextVar[Source] = ContextVar("source", default=Source(documents=()))  # noqa: B039 (immutable)


@contextlib.contextmanager
def drawing_from(source: Source) -> Iterator[None]:
    """Offline tasks loaded in this block draw from `source`."""
    token = _SOURCE.set(source)
    try:
        yield
    finally:
        _SOURCE.reset(token)


def completion(**_: Any) -> dict[str, Any]:
    """Passages with their continuation and three that belong elsewhere.

    Raises: TaskError where there are too few test documents
    """
    passages = list(_passages(before=160, after=40))
    rows = []
    for index, (context, following) in enumerate(passages):
        rng = random.Random(f"completion/{index}")
        others = [text for text in (p[1] for p in passages) if text != following]
        choices = [following, *rng.sample(others, 3)]
        rng.shuffle(choices)
        rows.append({"context": context, "choices": choices, "label": choices.index(following)})
    return _dataset(rows)


def last_word(**_: Any) -> dict[str, Any]:
    """Passages that end in a word of five letters or more which they contain before.

    Raises: TaskError where there are too few test documents
    """
    rows = []
    for context, _after in _passages(before=240, after=1):
        for match in reversed(list(re.finditer(r" [A-Za-z]{5,}\b", context))):
            if match.start() > 80 and re.search(rf"\b{match[0].strip()}\b", context[: match.start()]):
                rows.append({"context": context[: match.start()], "target": match[0]})
                break
    return _dataset(rows)


def word_results(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Accuracy and perplexity as lm-eval has them, and their logarithm, which no single seed dominates."""
    ((log_likelihood, greedy),) = results
    return {"acc": float(greedy), "perplexity": log_likelihood, "nats_per_word": -log_likelihood}


def skill(*, skill: str, **_: Any) -> dict[str, Any]:
    """Test items of a skill; the same ones whatever the seed of a run."""
    from harness.data.skills import skill_items

    limit = _SOURCE.get().limit or ITEMS
    rows = [
        {
            "id": item.id,
            "prompt": item.prompt,
            "answer": item.answer,
            "checks": _plain(item.checks),
            "choices": list(item.choices),
            "label": item.label,
        }
        for item in skill_items(skill, "test", seed=0, n=limit)
    ]
    return _dataset(rows)


def followed(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Whether the answer meets all constraints, and what share of them it meets."""
    import json

    from harness.data.checks import check, share_met

    checks = json.loads(doc["checks"])
    return {"followed": float(check(results[0], checks)), "constraints_met": share_met(results[0], checks)}


def _plain(checks: dict[str, Any]) -> str:
    """Constraints as JSON: a column of a data set holds one type."""
    import json

    return json.dumps(checks, sort_keys=True)


def _passages(*, before: int, after: int) -> Iterator[tuple[str, str]]:
    """Distinct stretches of test documents, cut at spaces: `before` characters and `after` following ones.

    Documentation where the corpus has any, else everything; several stretches of a long document.
    """
    source = _SOURCE.get()
    documents = [d for d in source.documents if d.domain == "docs"] or list(source.documents)
    wanted = source.limit or ITEMS
    stretches = []
    for document in documents:
        step = before + after + 200
        for start in range(0, len(document.text) - before - after - 20, step):
            found = _stretch(document.text[start : start + before + after + 40], before, after)
            if found is not None:
                stretches.append((_hash(f"{document.id}/{start}"), found))
    stretches.sort()
    if len(stretches) < 4:
        raise TaskError(
            "the offline document tasks need at least 4 passages of test documents, found "
            f"{len(stretches)}; add the stage corpus or raise corpus.test_share"
        )
    yield from (found for _, found in stretches[:wanted])


def _stretch(text: str, before: int, after: int) -> tuple[str, str] | None:
    first, middle = text.find(" ") + 1, text.find(" ", before)
    end = text.find(" ", middle + after)
    if not 0 < first < middle < end or text[middle + 1 : end].count(" ") < after // 20:
        return None
    return text[first:middle], text[middle:end]


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _dataset(rows: list[dict[str, Any]]) -> dict[str, Any]:
    from datasets import Dataset

    return {"test": Dataset.from_list(rows)}
