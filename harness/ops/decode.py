"""Token-by-token decoding of many prompts at once: rows of any length share a batch and leave it as they end.

Source: continuous batching, Yu et al. 2022, Orca (OSDI), section 3.1
Shapes: B rows, T new tokens, S tokens so far, V vocabulary
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from harness.errors import IncompatibleError
from harness.ops.drawing import Rule
from harness.ops.extension import follows_length
from harness.ops.growing_cache import GrowingCache
from harness.ops.paged_cache import PagedCache
from harness.ops.quantized_cache import UNPACKED, QuantizedCache
from harness.ops.sink_cache import SinkCache
from harness.ops.skip_padding import runs_of, skipping
from harness.ops.state_cache import StateCache
from harness.ops.window_cache import WindowCache

Ended = Callable[[Sequence[int]], bool]
"""New tokens of a row -> whether it has ended, e.g. at a stop string."""

PROMPT_TOKENS = 4096
"""Padded tokens of prompts that are read in one pass."""
SPREAD = 0.75
"""Prompts read in one pass have at least this share of the longest one's tokens."""
REFILL = 0.25
"""Share of a batch that has ended before its rows are dropped and others take their place."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One prompt to continue."""

    ids: Sequence[int]
    max_new_tokens: int
    seed: int = 0
    """Of the stream that its tokens are drawn from."""
    ended: Ended | None = None


def decode(
    model: Any,
    jobs: Sequence[Job],
    rule: Rule,
    *,
    ends: Sequence[int],
    pad: int,
    batch_size: int = 64,
    batch_tokens: int = 32768,
    cache_bits: int = UNPACKED,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[list[int]]:
    """New tokens of every job, its end token included, in the jobs' order.

    Units: `batch_tokens` bounds rows times (prompt + new tokens), which bounds the cache
    """
    waiting = sorted(range(len(jobs)), key=lambda index: -len(jobs[index].ids))
    answers: list[list[int]] = [[] for _ in jobs]
    pool: Pool | None = None
    while waiting or pool is not None:
        pools = [] if pool is None else [pool]
        while waiting and (not pools or pools[0].joinable):
            held = sum(len(each.rows) for each in pools)
            room = batch_tokens - held * max((each.width for each in pools), default=0)
            taken = _take(jobs, waiting, at_most=batch_size - held, room=room, force=not pools)
            if not taken:
                break
            read = [jobs[index] for index in taken]
            pools.append(Pool.read(model, read, taken, pad=pad, cache_bits=cache_bits))
        pool = pools[0].join(*pools[1:]).run(jobs, rule, answers, stops=frozenset(ends))
        on_progress(len(jobs) - len(waiting) - (len(pool.rows) if pool else 0), len(jobs))
    return answers


def _take(jobs: Sequence[Job], waiting: list[int], *, at_most: int, room: int, force: bool) -> list[int]:
    """Jobs of similar length off the front of the queue, as many as fit; at least one where forced."""
    longest = len(jobs[waiting[0]].ids)
    taken: list[int] = []
    for index in waiting[:at_most]:
        needed = (len(taken) + 1) * (longest + jobs[index].max_new_tokens)
        small = len(jobs[index].ids) < SPREAD * longest
        if small or needed > room or (len(taken) + 1) * longest > PROMPT_TOKENS:
            break
        taken.append(index)
    if not taken and force:
        taken = waiting[:1]
    del waiting[: len(taken)]
    return taken


class Pool:
    """Rows that are decoded together, padded on the left to one width.

    State: `tokens` holds what each row was given and said; `mask_BS` marks the cache's real columns; `runs`
        are rows of similar length, each of which is read without the padding of all
    """

    runs: Sequence[tuple[int, int, int]] = ()

    def __init__(
        self,
        model: Any,
        rows: list[int],
        tokens: list[list[int]],
        cache: Any,
        mask_BS: Tensor,
        logits: Tensor,
    ) -> None:
        self.model, self.rows, self.tokens = model, rows, tokens
        self.cache, self.mask_BS, self.logits_BV = cache, mask_BS, logits
        self.said = [0] * len(rows)
        self.ended = [False] * len(rows)

    @classmethod
    def read(
        cls, model: Any, jobs: Sequence[Job], rows: list[int], *, pad: int, cache_bits: int = UNPACKED
    ) -> Pool:
        """Read prompts, and keep the logits of their last tokens alone."""
        tokens = [list(job.ids) for job in jobs]
        width = max(map(len, tokens))
        ids_BT = torch.full((len(tokens), width), pad)
        mask_BT = torch.zeros(len(tokens), width, dtype=torch.long)
        for row, given in enumerate(tokens):
            ids_BT[row, width - len(given) :] = torch.tensor(given)
            mask_BT[row, width - len(given) :] = 1
        device = next(model.parameters()).device
        cache, logits = new_cache(model, bits=cache_bits), None
        # What a token reads may depend on how long its prompt is, which a part of it does not tell.
        size = width if follows_length(model) else max(1, PROMPT_TOKENS // len(tokens))
        ids_BT, mask_BT = ids_BT.to(device), mask_BT.to(device)
        for start in range(0, width, size):
            end = min(width, start + size)
            logits = next_logits(model, ids_BT[:, start:end], mask_BT[:, :end], cache)
        assert logits is not None
        return cls(model, rows, tokens, cache, mask_BT, logits)

    @property
    def width(self) -> int:
        return self.mask_BS.shape[1]

    @property
    def joinable(self) -> bool:
        """Whether caches of this kind can take further rows in."""
        return all(isinstance(layer, GrowingCache | PagedCache) for layer in self.cache.layers)

    def join(self, *others: Pool) -> Pool:
        """All pools' rows as one."""
        pools = (self, *others)
        width = max(pool.width for pool in pools)
        if others:
            for own, *theirs in zip(*(pool.cache.layers for pool in pools), strict=True):
                own.join(*theirs)
            self.logits_BV = torch.cat([pool.logits_BV for pool in pools])
        masks = [torch.nn.functional.pad(pool.mask_BS, (width - pool.width, 0)) for pool in pools]
        self.mask_BS = torch.cat(masks)
        for name in ("rows", "tokens", "said", "ended"):
            setattr(self, name, [item for pool in pools for item in getattr(pool, name)])
        self.arrange()
        return self

    def arrange(self) -> None:
        """See which padding the rows that there are can leave out, where reading costs more than calls do."""
        self.runs = ()
        grows = all(isinstance(layer, GrowingCache) for layer in self.cache.layers)
        if grows and self.mask_BS.device.type == "cpu":
            self.runs = runs_of(self.mask_BS.argmax(dim=1).tolist(), self.width)

    def run(
        self, jobs: Sequence[Job], rule: Rule, answers: list[list[int]], *, stops: frozenset[int]
    ) -> Pool | None:
        """Choose and read tokens until REFILL of the rows have ended; the rows that go on, if any."""
        seeds = [jobs[index].seed for index in self.rows]
        while True:
            chosen_B = rule.choose(self.tokens, self.logits_BV, seeds, self.said)
            for row, (index, token) in enumerate(zip(self.rows, chosen_B.tolist(), strict=True)):
                if self.ended[row]:
                    continue
                job, answer = jobs[index], answers[index]
                answer.append(token)
                self.tokens[row].append(token)
                self.said[row] += 1
                full = len(answer) >= job.max_new_tokens
                self.ended[row] = full or token in stops or (job.ended is not None and job.ended(answer))
            if all(self.ended):
                return None
            if sum(self.ended) > len(self.rows) * REFILL:
                keep = torch.tensor([row for row, ended in enumerate(self.ended) if not ended])
                self.keep(keep.to(chosen_B.device))
                self.feed(chosen_B[keep.to(chosen_B.device)])
                return self
            self.feed(chosen_B)

    def feed(self, chosen_B: Tensor) -> None:
        """Read one token of every row; what ended rows are given is never used."""
        self.mask_BS = torch.cat((self.mask_BS, self.mask_BS.new_ones(len(chosen_B), 1)), dim=1)
        with skipping(_inner(self.model), self.runs, self.width):
            self.logits_BV = next_logits(self.model, chosen_B[:, None], self.mask_BS, self.cache)

    def keep(self, index_B: Tensor) -> None:
        """Drop all other rows, and the columns that were padding for those that stay."""
        self.cache.batch_select_indices(index_B)
        self.mask_BS = self.mask_BS[index_B]
        for name in ("rows", "tokens", "said", "ended"):
            setattr(self, name, [getattr(self, name)[row] for row in index_B.tolist()])
        spare = int(self.mask_BS.long().argmax(dim=1).min())
        if spare and all(isinstance(layer, GrowingCache) for layer in self.cache.layers):
            for layer in self.cache.layers:
                layer.drop_left(spare)
            self.mask_BS = self.mask_BS[:, spare:]
        self.arrange()


@torch.inference_mode()
def next_logits(model: Any, ids_BT: Tensor, mask_BS: Tensor, cache: Any, *, keep: int = 1) -> Tensor:
    """Logits of the last tokens after reading `ids_BT` on top of a cache; of the very last one: BV.

    Shapes: ids_BT, mask_BS over the cache and these tokens -> BV, or B[keep]V where more are kept
    """
    takes = _arguments(model)
    inputs: dict[str, Any] = {"input_ids": ids_BT, "past_key_values": cache, "use_cache": True}
    if not bool(mask_BS.all()):
        inputs["attention_mask"] = mask_BS
    if "position_ids" in takes:
        positions_BS = (mask_BS.cumsum(-1) - 1).clamp_(min=0)
        inputs["position_ids"] = positions_BS[:, mask_BS.shape[1] - ids_BT.shape[1] :]
    logits: Tensor = model(**inputs, **last_logits(model, keep)).logits[:, -keep:]
    return logits[:, 0] if keep == 1 else logits


def last_logits(model: Any, keep: int = 1) -> dict[str, int]:
    """What a model's call is given so that it makes logits of the last tokens alone, where it can."""
    takes = _arguments(model)
    return {"logits_to_keep": keep} if "logits_to_keep" in takes else {}


def new_cache(model: Any, *, bits: int = UNPACKED) -> Any:
    """An empty cache of the kind that a model keeps; plain growing tensors get room to grow in place.

    With fewer `bits` they are packed.
    Raises: IncompatibleError for a model that would ignore it, and for fewer bits of a cache that holds
        anything but all keys and values
    """
    from transformers import Cache, DynamicCache
    from transformers.cache_utils import CacheLayerMixin, DynamicLayer

    CacheLayerMixin.register(GrowingCache)
    inner = _inner(model)
    if not takes_cache(model):
        raise IncompatibleError(
            f"{type(inner).__name__} takes no past_key_values, so that each token would be read as if none "
            "stood before it: it can be scored on texts that are read at once, and not generate; use a model "
            "that takes them (jamba, say), or one of ours (attention=mamba2)"
        )
    own = getattr(inner, "context_cache", None)  # of a context method
    if own is not None and bits == UNPACKED:
        return own()
    cache = inner.new_cache() if hasattr(inner, "new_cache") else DynamicCache(config=inner.config)
    plain = all(type(layer) is DynamicLayer for layer in cache.layers)
    if bits != UNPACKED:
        if own is not None or not plain:
            raise IncompatibleError(
                f"decoding.cache_bits={bits}: the cache of this {type(inner).__name__} holds something else "
                f"than all keys and values of its layers, one tensor each; leave it at {UNPACKED}"
            )
        CacheLayerMixin.register(QuantizedCache)
        return Cache(layers=[QuantizedCache(bits=bits) for _ in range(len(cache.layers) or _depth(inner))])
    if plain:
        return Cache(layers=[GrowingCache() for _ in range(len(cache.layers) or _depth(inner))])
    return cache


def takes_cache(model: Any) -> bool:
    """Whether a model reads on from a cache; some keep a state under other names, and ignore it."""
    return "past_key_values" in _named(_inner(model).__class__)


def forgets(model: Any) -> bool:
    """Whether some layer of a model's cache drops what is no longer read: a window's, or a state's."""
    if not takes_cache(model):
        return False
    kinds = (SinkCache, StateCache, WindowCache)
    layers = new_cache(model).layers
    return any(isinstance(layer, kinds) or getattr(layer, "is_sliding", False) for layer in layers)


@cache
def _named(kind: type[Any]) -> frozenset[str]:
    """Names of what the forward of a class takes, which each token would otherwise ask anew."""
    return frozenset(inspect.signature(kind.forward).parameters)


def _arguments(model: Any) -> frozenset[str]:
    """Names of what a model's forward takes; one that was replaced on the model itself is asked."""
    inner = _inner(model)
    if "forward" in vars(inner):
        return frozenset(inspect.signature(inner.forward).parameters)
    return _named(inner.__class__)


def _inner(model: Any) -> Any:
    """The transformers model inside a wrapper of PEFT's."""
    return getattr(model, "get_base_model", lambda: model)()


def _depth(model: Any) -> int:
    return int(model.config.get_text_config(decoder=True).num_hidden_layers)
