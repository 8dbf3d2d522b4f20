"""Log-likelihoods of continuations: every shared context is run once, and only needed logits are kept."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.errors import TaskError
from harness.model import architecture_of
from harness.model.conditioning import decoder_start_id
from harness.ops.decode import forgets, new_cache
from harness.ops.extension import follows_length

SHORTEST_SHARED = 4
"""Tokens of context below which reading it again costs less than sharing it."""
SPREAD = 0.75
"""A batch holds sequences of at least this share of its longest one, so that padding stays small."""
COPIES = 4
"""Copies of a context's cache take at most so many times the tokens of a batch."""
LOGITS = 1 << 25
"""Logits that are held at once, at most; longer rows are read in parts, where the model keeps a cache."""
PART = 1024
"""Tokens of a row that a model which forgets reads at once, so that it holds little beside its windows."""
SLICE = 256
"""Positions whose logits are widened to float32 at once."""


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


def rolling(
    tokens: Sequence[int], *, prefix: int, max_length: int, stride: int | None = None
) -> Iterator[ScoreRequest]:
    """Windows that predict every token of a text once, each with as much context as still fits.

    After the first window each predicts `stride` tokens, null = as many as it holds: the fewer, the more
    context every token has.
    Source: lm-eval's get_rolling_token_windows with context_len = max_length - stride + 1
    """
    done = 0
    while done < len(tokens):
        end = min(len(tokens), done + (max_length if not done or stride is None else stride))
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


Scores = dict[int, Score]
"""By index of the request."""


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
    _refused: dict[str, str] = field(default_factory=dict)
    """Way of reading -> why it is not used."""
    _checked: set[tuple[Any, ...]] = field(default_factory=set)

    def __post_init__(self) -> None:
        architecture = architecture_of(self.model)
        if architecture is not None and (architecture.uses_prefix() or architecture.has_encoder()):
            self.share_prefix = False  # what a context's tokens read depends on where it ends
        self._by_length = follows_length(self.model)
        if self._by_length:
            self.share_prefix = False
            self.facts["scored_by_length"] = True
        if not self._takes_trees():
            self._refused["tree"] = "the model takes no mask of its own"

    @torch.inference_mode()
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Scores in the order of the requests. A context that does not fit loses tokens on the left.

        Raises: TaskError for an empty context or continuation, or one longer than the window
        """
        together, alone = self._arrange(requests)
        scores: Scores = {}
        for groups in self._batches(self._split(together), size=_tree_size):
            found = self._shared(groups)
            if found is None:
                alone.extend(row for group in groups for row in group)
            else:
                scores |= found
        for rows in self._batches(alone, size=lambda row: (len(row.ids), 0)):
            scores |= self._rows(rows)
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
        least = 1.0 if self._by_length else SPREAD
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
        for way, read in (("tree", self._read_tree), ("copies", self._read_copies)):
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
            found = self._verified("rows", (len(lengths) > 1,), rows, partial(self._read_rows, rows))
            if found is not None:
                return found
            self.facts["read_one_by_one"] = self._refused["rows"]
        scores: Scores = {}
        for row in rows:
            scores |= self._read_rows([row])
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
        limit = 4096 * torch.finfo(self._dtype).eps  # 5e-4 in fp32
        for row in by_length[:: max(1, len(by_length) - 1)]:
            alone = self._read_rows([row])
            apart = max(_distance(found[index], score) for index, score in alone.items())
            if not apart <= limit:
                self._refused[way] = f"log-probabilities differ by {apart:.2g} from those of a row read alone"
                return None
        return found

    def _read_rows(self, rows: Sequence[Row]) -> Scores:
        """Rows padded on the right; read in parts where their logits would fill the memory."""
        conditioned, inputs = self._conditioned(rows)
        width = max(len(row.ids) for row in conditioned)
        start = min(row.first_needed for row in conditioned)
        size = max(SLICE, LOGITS // (self._vocabulary * len(rows)))
        at_once = width - start <= size
        if self._forgets:
            at_once, size = at_once and width <= PART, min(size, PART)
        if at_once or inputs or self._by_length or self._prompted:
            logits_BTV, _ = self._forward([row.ids for row in conditioned], keep=width - start, inputs=inputs)
            return _collect(conditioned, logits_BTV, start)
        return self._read_parts(conditioned, width=width, size=size)

    def _read_parts(self, rows: Sequence[Row], *, width: int, size: int) -> Scores:
        """The same part by part, on a cache that keeps what the model can still read."""
        parts: dict[int, list[Score]] = defaultdict(list)
        cache: Any = new_cache(self.model)
        for start in range(0, width, size):
            end = min(width, start + size)
            ids = [row.ids[start:end] for row in rows]
            wanted = [_part(row, start, end) for row in rows]
            first = min((row.first_needed for row in wanted if row.wants), default=end - start)
            logits_BTV, cache = self._forward(
                ids, keep=max(1, end - start - first), cache=cache, width=end - start
            )
            kept = [(place, row) for place, row in enumerate(wanted) if row.wants]
            if kept:
                chosen = logits_BTV[[place for place, _ in kept]]
                for index, score in _collect([row for _, row in kept], chosen, first).items():
                    parts[index].append(score)
        self.facts["read_in_parts"] = True
        return {
            index: Score(torch.cat([s.log_probs for s in found]), all(s.greedy for s in found))
            for index, found in parts.items()
        }

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

    def _read_tree(self, groups: Sequence[Sequence[Row]]) -> Scores:
        """Contexts, padded on the left, each with its continuations behind it in one row."""
        context = max(group[0].shared + 1 for group in groups)
        more = max(_tree_size(group)[1] for group in groups)
        ids_BT = torch.full((len(groups), context + more), self.pad_id)
        position_BT = torch.zeros_like(ids_BT)
        branch_BT = torch.full_like(ids_BT, -1)  # 0 the context, 1, 2, ... its continuations, -1 padding
        columns: list[tuple[int, Row, list[int]]] = []
        for place, group in enumerate(groups):
            length = group[0].shared + 1
            ids_BT[place, context - length : context] = torch.tensor(group[0].ids[:length])
            position_BT[place, context - length : context] = torch.arange(length)
            branch_BT[place, context - length : context] = 0
            at = context
            for branch, row in enumerate(group, start=1):
                rest = row.ids[length:]
                ids_BT[place, at : at + len(rest)] = torch.tensor(rest, dtype=torch.long)
                position_BT[place, at : at + len(rest)] = torch.arange(length, length + len(rest))
                branch_BT[place, at : at + len(rest)] = branch
                columns.append((place, row, [context - 1, *range(at, at + len(rest))]))
                at += len(rest)
        slot = torch.arange(context + more)
        own = (branch_BT[:, None, :] == branch_BT[:, :, None]) | (branch_BT[:, None, :] == 0)
        seen_BTT = own & (branch_BT[:, None, :] >= 0) & (slot[:, None] >= slot)
        seen_BTT |= slot[:, None] == slot  # padding reads itself, so that no softmax is empty
        mask = seen_BTT[:, None].to(self._device)
        if self._attention == "eager":
            low = torch.finfo(self._dtype).min
            mask = torch.zeros(mask.shape, dtype=self._dtype, device=mask.device).masked_fill(~mask, low)
        inputs = {"attention_mask": mask, "position_ids": position_BT}
        logits_BTV, _ = self._forward(ids_BT.tolist(), keep=more + 1, inputs=inputs)
        wants = [(place, at, index, want) for place, row, at in columns for index, want in row.wants]
        lines = [place for place, _, _, want in wants for _ in want]
        found = [column - (context - 1) for _, at, _, want in wants for column in at[len(at) - len(want) :]]
        return _scores(logits_BTV, lines, found, [(index, want) for _, _, index, want in wants])

    def _read_copies(self, groups: Sequence[Sequence[Row]]) -> Scores:
        """The leading tokens that all contexts have at least, then on copies of that cache what is left."""
        cached = min(group[0].shared for group in groups)
        cache: Any = new_cache(self.model) if self._forgets else None
        size = PART if self._forgets else cached
        for at in range(0, cached, size):
            part = [group[0].ids[at : min(at + size, cached)] for group in groups]
            _, cache = self._forward(part, keep=1, cache=cache, use_cache=True)
        copies = [index for index, group in enumerate(groups) for _ in group]
        if not hasattr(cache, "batch_select_indices"):
            raise TypeError(f"{type(cache).__name__} cannot be copied along the batch")
        cache.batch_select_indices(torch.tensor(copies, device=self._device))
        rows = [row for group in groups for row in group]
        width = max(len(row.ids) for row in rows)
        start = min(row.first_needed for row in rows)
        logits_BTV, _ = self._forward([row.ids[cached:] for row in rows], keep=width - start, cache=cache)
        return _collect(rows, logits_BTV, start)

    def _forward(
        self,
        sequences: Sequence[Sequence[int]],
        *,
        keep: int,
        cache: Any = None,
        use_cache: bool = False,
        inputs: Mapping[str, Tensor] | None = None,
        width: int | None = None,
    ) -> tuple[Tensor, Any]:
        """Logits of the last `keep` columns of the right-padded batch, and the cache if asked for."""
        width = max(map(len, sequences)) if width is None else width
        ids_BT = torch.full((len(sequences), width), self.pad_id)
        for index, sequence in enumerate(sequences):
            ids_BT[index, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
        options: dict[str, Any] = {"use_cache": use_cache or cache is not None}
        options |= {name: value.to(self._device) for name, value in (inputs or {}).items()}
        if cache is not None:
            options["past_key_values"] = cache
        if self._keeps_logits:
            options["logits_to_keep"] = keep
        out = self.model(input_ids=ids_BT.to(self._device), **options)
        return out.logits[:, -keep:], getattr(out, "past_key_values", None)

    def _takes_trees(self) -> bool:
        """Whether the model is one of transformers' that reads a mask and positions as they are given."""
        base: Any = getattr(self.model, "get_base_model", lambda: self.model)()
        config = getattr(base, "config", None)
        if config is None or hasattr(config, "model_spec") or getattr(config, "sliding_window", None):
            return False
        takes = inspect.signature(base.forward).parameters
        return "position_ids" in takes and "attention_mask" in takes and self._attention in ("sdpa", "eager")

    @cached_property
    def _forgets(self) -> bool:
        """Whether the model's cache drops what is no longer read."""
        return hasattr(self.model, "config") and forgets(self.model)

    @property
    def _prompted(self) -> bool:
        """Whether the peft library puts virtual tokens before what it is given, into an empty cache alone."""
        return bool(getattr(getattr(self.model, "active_peft_config", None), "is_prompt_learning", False))

    @property
    def _attention(self) -> str:
        return str(getattr(getattr(self.model, "config", None), "_attn_implementation", ""))

    @property
    def _vocabulary(self) -> int:
        head: Any = getattr(self.model, "get_output_embeddings", lambda: None)()
        return int(head.weight.shape[0]) if hasattr(head, "weight") else 1 << 16

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def _dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @cached_property
    def _keeps_logits(self) -> bool:
        base = getattr(self.model, "get_base_model", lambda: self.model)()
        return "logits_to_keep" in inspect.signature(base.forward).parameters


def _tree_size(group: Sequence[Row]) -> tuple[int, int]:
    """(tokens of a group's context, tokens of its continuations that are read)."""
    context = group[0].shared + 1
    return context, sum(len(row.ids) - context for row in group)


def _part(row: Row, start: int, end: int) -> Row:
    """What a row asks of its tokens start..end: continuations as far as these tokens predict them."""
    wants = []
    for index, want in row.wants:
        first = len(row.ids) - len(want)  # the column that predicts the first token
        low, high = max(start, first), min(end, len(row.ids))
        if low < high:
            wants.append((index, want[low - first : high - first]))
    return Row(ids=row.ids[start:end], shared=0, wants=wants)


def _collect(rows: Sequence[Row], logits_BTV: Tensor, start: int) -> Scores:
    """Scores from logits whose first column stands at position `start` of every row."""
    wants = [(b, row, index, want) for b, row in enumerate(rows) for index, want in row.wants]
    lines = [b for b, _, _, want in wants for _ in want]
    columns = [len(row.ids) - len(want) + i - start for _, row, _, want in wants for i in range(len(want))]
    return _scores(logits_BTV, lines, columns, [(index, want) for _, _, index, want in wants])


def _scores(
    logits_BTV: Tensor, lines: list[int], columns: list[int], wants: Sequence[tuple[int, Sequence[int]]]
) -> Scores:
    """Scores of continuations whose tokens are predicted at these lines and columns, one after the other."""
    device = logits_BTV.device
    targets_N = torch.tensor([token for _, want in wants for token in want], device=device)
    line_N, column_N = torch.tensor(lines, device=device), torch.tensor(columns, device=device)
    log_probs: list[Tensor] = []
    likeliest: list[Tensor] = []
    for begin in range(0, len(targets_N), SLICE):
        part = slice(begin, begin + SLICE)
        needed_NV = logits_BTV[line_N[part], column_N[part]].float()
        chosen_N = needed_NV.gather(1, targets_N[part, None])[:, 0]
        log_probs.append(chosen_N - needed_NV.logsumexp(-1))
        likeliest.append(needed_NV.argmax(-1) == targets_N[part])
    sizes = [len(want) for _, want in wants]
    parts = zip(
        wants, torch.cat(log_probs).cpu().split(sizes), torch.cat(likeliest).cpu().split(sizes), strict=True
    )
    return {index: Score(found, bool(greedy.all())) for (index, _), found, greedy in parts}


def _trained(model: nn.Module, default: int) -> int:
    """The length that a model was trained on, before a context method stretched it."""
    config = getattr(model, "config", None)
    stated = getattr(config, "trained_length", None) or getattr(config, "max_position_embeddings", None)
    return int(stated or default)


def _distance(first: Score, second: Score) -> float:
    """Largest difference between the log-probabilities of two scores of one request."""
    return float((first.log_probs - second.log_probs).abs().max())
