"""Log-likelihoods of continuations: every shared context is run once, and only needed logits are kept."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import TaskError
from harness.model import architecture_of
from harness.model.conditioning import decoder_start_id

SHORTEST_SHARED = 4
"""Tokens of context below which a second forward pass costs more than running the context again."""
SPREAD = 0.75
"""A batch holds sequences of at least this share of its longest one, so that padding stays small."""


class ScoreRequest(NamedTuple):
    """Score `continuation` after `context`; both are token ids, neither is empty."""

    context: Sequence[int]
    continuation: Sequence[int]


class Score(NamedTuple):
    """Log-probabilities (natural logarithm) of a continuation's tokens, and whether each is the likeliest."""

    log_probs: Tensor
    greedy: bool

    @property
    def total(self) -> float:
        """Their sum, added in float64."""
        return float(self.log_probs.double().sum())


def rolling(tokens: Sequence[int], *, prefix: int, max_length: int) -> Iterator[ScoreRequest]:
    """Windows that predict every token of a text once, each with as much context as still fits.

    Source: lm-eval's get_rolling_token_windows with context_len=1
    """
    done = 0
    while done < len(tokens):
        end = min(len(tokens), done + max_length)
        context = tokens[max(0, end - max_length - 1) : done] if done else [prefix]
        yield ScoreRequest(context, tokens[done:end])
        done = end


@dataclass(kw_only=True)
class Row:
    """One input sequence with the continuations it answers (single-token choices share one)."""

    ids: tuple[int, ...]
    shared: int
    """Leading tokens that other rows of the same context have too."""
    wants: list[tuple[int, Sequence[int]]] = field(default_factory=list)
    """(index of the request, its continuation); the row's last token predicts the last of it."""

    @property
    def first_needed(self) -> int:
        return min(len(self.ids) - len(continuation) for _, continuation in self.wants)


@dataclass(kw_only=True)
class LikelihoodScorer:
    """Scores requests on any causal model that returns logits (and a key/value cache, to share contexts).

    Batches hold sequences of similar length, padded on the right, where a causal model needs no mask. Rows of
    one context are run in two passes: the leading tokens that a whole batch of contexts has at least, then,
    on copies of that cache, what is left of each context and its continuations.

    State: `facts` accumulates counts; the first shared context is scored both ways, and sharing is given up
        where the two differ (a cache that is not exact), which `facts` says
    Units: natural logarithm; batch_tokens counts padded tokens of a forward pass
    Error: that of the model under another batch size; log-sum-exp in float32
    """

    model: nn.Module
    max_length: int
    batch_tokens: int = 2048
    pad_id: int = 0
    share_prefix: bool = True
    facts: dict[str, Any] = field(
        default_factory=lambda: {
            "requests": 0,
            "truncated_contexts": 0,
            "truncated_tokens": 0,
            "saved_tokens": 0,
        }
    )
    _verified: bool = False

    def __post_init__(self) -> None:
        architecture = architecture_of(self.model)
        if architecture is not None and (architecture.uses_prefix() or architecture.has_encoder()):
            self.share_prefix = False  # what a context's tokens read depends on where it ends

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests. A context that does not fit loses tokens on the left.

        Raises: TaskError for an empty context or continuation, or one longer than the window
        """
        scores: list[Score | None] = [None] * len(requests)
        together, alone = self._arrange(requests)
        for groups in self._batches(together, length=lambda group: group[0].shared, rows=len):
            if not self._exact(groups[0]):
                alone.extend(row for group in groups for row in group)
                continue
            self._run_shared(groups, scores)
        for rows in self._batches(alone, length=lambda row: len(row.ids), rows=lambda row: 1):
            self._run(rows, scores)
        assert all(score is not None for score in scores)
        return scores  # type: ignore[return-value]

    def _arrange(self, requests: Sequence[ScoreRequest]) -> tuple[list[list[Row]], list[Row]]:
        """Groups of rows that share a context worth caching, and the other rows."""
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

    def _batches(self, items: Iterable[Any], *, length: Any, rows: Any) -> Iterator[list[Any]]:
        """Items of similar length, longest first, within `batch_tokens`."""
        batch: list[Any] = []
        width = count = 0
        for item in sorted(items, key=length, reverse=True):
            fits = (count + rows(item)) * width <= self.batch_tokens and length(item) >= SPREAD * width
            if batch and not fits:
                yield batch
                batch, count = [], 0
            if not batch:
                width = length(item)
            batch.append(item)
            count += rows(item)
        if batch:
            yield batch

    def _run(self, rows: Sequence[Row], scores: list[Score | None]) -> None:
        rows, inputs = self._conditioned(rows)
        width = max(len(row.ids) for row in rows)
        start = min(row.first_needed for row in rows)
        logits_BTV, _ = self._forward([row.ids for row in rows], keep=width - start, inputs=inputs)
        self._collect(rows, logits_BTV, start, scores)

    def _conditioned(self, rows: Sequence[Row]) -> tuple[Sequence[Row], dict[str, Tensor]]:
        """Rows as the architecture reads a context: plainly, as a prefix, or as an encoder's source.

        An encoder reads the whole context; its decoder starts from the context's last token, as in training,
        or from the start token that an imported checkpoint states.
        """
        architecture = architecture_of(self.model)
        lengths = [row.first_needed + 1 for row in rows]
        if architecture is None or not (architecture.uses_prefix() or architecture.has_encoder()):
            return rows, {}
        if architecture.uses_prefix():
            return rows, {"prefix_length": torch.tensor(lengths)}
        sources = torch.full((len(rows), max(lengths)), self.pad_id)
        mask = torch.zeros_like(sources)
        for index, (row, length) in enumerate(zip(rows, lengths, strict=True)):
            sources[index, :length] = torch.tensor(row.ids[:length])
            mask[index, :length] = 1
        start_id = decoder_start_id(self.model)
        targets = [
            Row(
                ids=(row.ids[length - 1] if start_id is None else start_id, *row.ids[length:]),
                shared=0,
                wants=row.wants,
            )
            for row, length in zip(rows, lengths, strict=True)
        ]
        return targets, {"encoder_input_ids": sources, "encoder_attention_mask": mask}

    def _run_shared(self, groups: Sequence[Sequence[Row]], scores: list[Score | None]) -> None:
        cached = min(group[0].shared for group in groups)
        _, cache = self._forward([group[0].ids[:cached] for group in groups], keep=1, use_cache=True)
        copies = [index for index, group in enumerate(groups) for _ in group]
        cache.batch_select_indices(torch.tensor(copies, device=self._device))
        rows = [row for group in groups for row in group]
        width = max(len(row.ids) for row in rows)
        start = min(row.first_needed for row in rows)
        logits_BTV, _ = self._forward([row.ids[cached:] for row in rows], keep=width - start, cache=cache)
        self._collect(rows, logits_BTV, start, scores)
        self.facts["saved_tokens"] += cached * (len(rows) - len(groups))

    def _exact(self, group: Sequence[Row]) -> bool:
        """Whether one shared context scores the same with and without the cache; asked once a model."""
        if self._verified or not self.share_prefix:
            return self.share_prefix
        indices = [index for row in group for index, _ in row.wants]
        plain: list[Score | None] = [None] * (1 + max(indices))
        shared = list(plain)
        self._run(group, plain)
        reason = ""
        _, cache = self._forward([group[0].ids[: group[0].shared]], keep=1, use_cache=True)
        if not hasattr(cache, "batch_select_indices"):
            reason = f"{type(cache).__name__} cannot be copied along the batch"
        else:
            self._run_shared([group], shared)
            error = max(_distance(shared[index], plain[index]) for index in indices)
            limit = 4096 * torch.finfo(self._dtype).eps  # 5e-4 in fp32
            if error > limit:
                reason = f"log-probabilities with the cache differ by {error:.2g} from those without"
        self._verified, self.share_prefix = True, not reason
        self.facts["shared_prefix"] = self.share_prefix
        if reason:
            self.facts["shared_prefix_refused"] = reason
        return self.share_prefix

    def _forward(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        keep: int,
        cache: Any = None,
        use_cache: bool = False,
        inputs: Mapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        """Logits of the last `keep` columns of the right-padded batch, and the cache if asked for."""
        width = max(map(len, sequences))
        ids_BT = torch.full((len(sequences), width), self.pad_id)
        for index, sequence in enumerate(sequences):
            ids_BT[index, : len(sequence)] = torch.tensor(sequence)
        options: dict[str, Any] = {"use_cache": use_cache or cache is not None}
        options |= {name: value.to(self._device) for name, value in (inputs or {}).items()}
        if cache is not None:
            options["past_key_values"] = cache
        if self._keeps_logits:
            options["logits_to_keep"] = keep
        out = self.model(input_ids=ids_BT.to(self._device), **options)
        return out.logits[:, -keep:], getattr(out, "past_key_values", None)

    def _collect(
        self, rows: Sequence[Row], logits_BTV: Tensor, start: int, scores: list[Score | None]
    ) -> None:
        """Fills in the scores from logits whose first column stands at position `start`."""
        wants = [(b, row, index, want) for b, row in enumerate(rows) for index, want in row.wants]
        lines = [b for b, _, _, want in wants for _ in want]
        columns = [
            len(row.ids) - len(want) + i - start for _, row, _, want in wants for i in range(len(want))
        ]
        targets = torch.tensor([token for *_, want in wants for token in want], device=logits_BTV.device)
        needed_NV = logits_BTV[torch.tensor(lines), torch.tensor(columns)].float()
        log_probs_N = needed_NV.gather(1, targets[:, None])[:, 0] - needed_NV.logsumexp(-1)
        likeliest_N = (needed_NV.argmax(-1) == targets).cpu()
        sizes = [len(want) for *_, want in wants]
        parts = zip(wants, log_probs_N.cpu().split(sizes), likeliest_N.split(sizes), strict=True)
        for (_, _, index, _), log_probs, likeliest in parts:
            scores[index] = Score(log_probs, bool(likeliest.all()))

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @property
    def _keeps_logits(self) -> bool:
        base = getattr(self.model, "get_base_model", lambda: self.model)()
        return "logits_to_keep" in inspect.signature(base.forward).parameters


def _distance(first: Score | None, second: Score | None) -> float:
    """Largest difference between the log-probabilities of two scores of one request."""
    assert first is not None
    assert second is not None
    return float((first.log_probs - second.log_probs).abs().max())
