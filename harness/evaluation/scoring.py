"""Log-likelihoods of continuations: which rows share a batch or a context, and which ways of reading hold."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import nn

from harness.errors import TaskError
from harness.evaluation.reading import Reader
from harness.evaluation.requests import Row, Score, ScoreRequest, Scores, tree_size
from harness.model import architecture_of

SHORTEST_SHARED = 4
"""Tokens of context below which reading it again costs less than sharing it."""
SPREAD = 0.75
"""A batch holds sequences of at least this share of its longest one, so that padding stays small."""
COPIES = 4
"""Copies of a context's cache take at most so many times the tokens of a batch."""


@dataclass(kw_only=True)
class LikelihoodScorer:
    """Scores requests on any causal model that returns logits.

    A context that several requests share is read once: in one row with all its continuations, each of which
    sees the context and itself alone; where a model takes no such mask, on copies of the context's cache.
    Other rows of similar length share a batch, padded on the right, where a causal model needs no mask. Rows
    of a model that reads by the length of a sequence share one only with rows as long.

    State: `facts` accumulates counts. The first batch of every class (how it is read, whether beyond the
        trained length, whether lengths differ) is compared with rows read alone, and a way of reading that is
        not exact is given up, which `facts` says
    Units: natural logarithm; batch_tokens counts padded tokens of a forward pass
    Error: that of the model under another batch size; log-sum-exp in float32
    """

    model: nn.Module
    max_length: int
    batch_tokens: int = 1024
    pad_id: int = 0
    share_prefix: bool = True
    on_progress: Callable[[int, int], None] = field(default=lambda done, total: None)
    """Told after a batch how many requests of how many are scored."""
    facts: dict[str, Any] = field(
        default_factory=lambda: {
            "requests": 0,
            "truncated_contexts": 0,
            "truncated_tokens": 0,
            "saved_tokens": 0,
        }
    )
    _refused: dict[str, str] = field(default_factory=dict)
    """Way of reading -> why it is not used."""
    _checked: set[tuple[Any, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._reader = Reader(model=self.model, pad_id=self.pad_id, facts=self.facts)
        architecture = architecture_of(self.model)
        if architecture is not None and (architecture.uses_prefix() or architecture.has_encoder()):
            self.share_prefix = False  # what a context's tokens read depends on where it ends
        if self._reader.by_length:
            self.share_prefix = False
            self.facts["scored_by_length"] = True
        if not self._reader.takes_trees():
            self._refused["tree"] = "the model takes no mask of its own"

    @property
    def dtype(self) -> torch.dtype:
        """Of the model's weights."""
        return self._reader.dtype

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests. A context that does not fit loses tokens on the left.

        Raises: TaskError for an empty context or continuation, or one longer than the window
        """
        together, alone = self._arrange(requests)
        scores: Scores = {}
        for groups in self._batches(self._split(together), size=tree_size):
            found = self._shared(groups)
            if found is None:
                alone.extend(row for group in groups for row in group)
            else:
                scores |= found
            self.on_progress(len(scores), len(requests))
        for rows in self._batches(alone, size=lambda row: (len(row.ids), 0)):
            scores |= self._rows(rows)
            self.on_progress(len(scores), len(requests))
        return [scores[index] for index in range(len(requests))]

    def _arrange(self, requests: Sequence[ScoreRequest]) -> tuple[list[list[Row]], list[Row]]:
        """Groups of rows that share a context worth reading once, and the other rows."""
        groups: dict[tuple[int, ...], dict[tuple[int, ...], Row]] = defaultdict(dict)
        for index, request in enumerate(requests):
            context = self._fit(request)
            ids = (*context, *request.continuation[:-1])
            row = groups[context].setdefault(ids, Row(ids=ids, shared=len(context) - 1))
            row.wants.append((index, tuple(request.continuation)))
        self.facts["requests"] += len(requests)
        together: list[list[Row]] = []
        alone: list[Row] = []
        for rows in map(list, (group.values() for group in groups.values())):
            if self.share_prefix and len(rows) > 1 and rows[0].shared >= SHORTEST_SHARED:
                together.append(rows)
            else:
                alone.extend(rows)
        return together, alone

    def _fit(self, request: ScoreRequest) -> tuple[int, ...]:
        """The context, cut on the left to what the window leaves it."""
        context, continuation = tuple(request.context), request.continuation
        if not context or not continuation:
            raise TaskError("a request needs at least one token of context and one of continuation")
        room = self.max_length + 1 - len(continuation)  # the last token is predicted, never read
        if room < 1:
            raise TaskError(
                f"a continuation of {len(continuation)} tokens does not fit a window of {self.max_length}; "
                "use a task with shorter choices or a model with a longer window"
            )
        if len(context) > room:
            self.facts["truncated_contexts"] += 1
            self.facts["truncated_tokens"] += len(context) - room
        return context[-room:]

    def _split(self, together: Iterable[list[Row]]) -> Iterator[list[Row]]:
        """Groups cut so that neither a row with all continuations nor copies of a cache grow without end."""
        for group in together:
            context, longest = group[0].shared + 1, max(len(row.ids) for row in group)
            size = max(2, COPIES * self.batch_tokens // longest)
            if longest > context:
                size = max(2, min(size, max(self.batch_tokens, 2 * context) // (longest - context)))
            for start in range(0, len(group), size):
                yield group[start : start + size]

    def _batches(self, items: Iterable[Any], *, size: Any) -> Iterator[list[Any]]:
        """Items of similar (length, more tokens), longest first, within `batch_tokens`."""
        batch: list[Any] = []
        width = more = 0
        least = 1.0 if self._reader.by_length else SPREAD
        for item in sorted(items, key=size, reverse=True):
            length, extra = size(item)
            fits = (len(batch) + 1) * (width + max(more, extra)) <= self.batch_tokens
            if batch and not (fits and length >= least * width):
                yield batch
                batch, more = [], 0
            if not batch:
                width = length
            batch.append(item)
            more = max(more, extra)
        if batch:
            yield batch

    def _shared(self, groups: Sequence[Sequence[Row]]) -> Scores | None:
        """Scores of groups whose contexts are read once; None where no way of doing so is exact."""
        rows = [row for group in groups for row in group]
        lengths = {group[0].shared for group in groups}
        for way, read in (("tree", self._reader.tree), ("copies", self._reader.copies)):
            if way in self._refused:
                continue
            found = self._verified(way, (len(groups) > 1, len(lengths) > 1), rows, partial(read, groups))
            if found is not None:
                self.facts["shared_prefix"] = True
                saved = sum(group[0].shared * (len(group) - 1) for group in groups)
                self.facts["saved_tokens"] += saved
                return found
        if "copies" in self._refused:
            self.facts |= {"shared_prefix": False, "shared_prefix_refused": self._refused["copies"]}
        return None

    def _rows(self, rows: Sequence[Row]) -> Scores:
        """Scores of rows that share a batch, or of each alone where its neighbours would change it."""
        if len(rows) > 1 and "rows" not in self._refused:
            lengths = {len(row.ids) for row in rows}
            found = self._verified("rows", (len(lengths) > 1,), rows, partial(self._reader.rows, rows))
            if found is not None:
                return found
            self.facts["read_one_by_one"] = self._refused["rows"]
        scores: Scores = {}
        for row in rows:
            scores |= self._reader.rows([row])
        return scores

    def _verified(
        self, way: str, kind: tuple[bool, ...], rows: Sequence[Row], read: Callable[[], Scores]
    ) -> Scores | None:
        """What a way of reading finds; None where, its class being new, rows alone yield something else."""
        beyond = max(len(row.ids) for row in rows) > _trained(self.model, self.max_length)
        try:
            found = read()
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
            if way == "rows" or (way, *kind, beyond) in self._checked:
                raise
            self._refused[way] = f"{type(error).__name__}: {error}"
            return None
        if (way, *kind, beyond) in self._checked:
            return found
        self._checked.add((way, *kind, beyond))
        by_length = sorted(rows, key=lambda row: len(row.ids))
        ends = {len(row.ids): row for row in (by_length[0], by_length[-1])}
        limit = 4096 * torch.finfo(self._reader.dtype).eps  # 5e-4 in fp32
        for row in ends.values():
            alone = self._reader.rows([row])
            apart = max(_distance(found[index], score) for index, score in alone.items())
            if not apart <= limit:
                self._refused[way] = f"log-probabilities differ by {apart:.2g} from those of a row read alone"
                return None
        return found


def _trained(model: nn.Module, default: int) -> int:
    """The length that a model was trained on, before a context method stretched it."""
    config = getattr(model, "config", None)
    stated = getattr(config, "trained_length", None) or getattr(config, "max_position_embeddings", None)
    return int(stated or default)


def _distance(first: Score, second: Score) -> float:
    """Largest difference between the log-probabilities of two scores of one request."""
    return float((first.log_probs - second.log_probs).abs().max())
