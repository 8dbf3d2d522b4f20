"""How a model reads rows of tokens, with only the logits kept that scores need."""

from __future__ import annotations

import inspect
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from harness.evaluation.requests import Row, Score, Scores, tree_size
from harness.model import architecture_of
from harness.model.conditioning import decoder_start_id
from harness.ops.decode import forgets, new_cache
from harness.ops.extension import follows_length

LOGITS = 1 << 25
"""Logits that are held at once, at most; longer rows are read in parts, where the model keeps a cache."""
PART = 1024
"""Tokens of a row that a model which forgets reads at once, so that it holds little beside its windows."""
SLICE = 256
"""Positions whose logits are widened to float32 at once."""


@dataclass(kw_only=True)
class Reader:
    """The ways in which a causal model can read rows; all give the same scores where the model is exact.

    State: `facts` says whether rows were read in parts
    Units: natural logarithm
    Error: log-sum-exp in float32
    """

    model: nn.Module
    pad_id: int
    facts: dict[str, Any]

    def rows(self, rows: Sequence[Row]) -> Scores:
        """Rows padded on the right; read in parts where their logits would fill the memory."""
        conditioned, inputs = self._conditioned(rows)
        width = max(len(row.ids) for row in conditioned)
        start = min(row.first_needed for row in conditioned)
        size = max(SLICE, LOGITS // (self._vocabulary * len(rows)))
        at_once = width - start <= size
        if self._forgets:
            at_once, size = at_once and width <= PART, min(size, PART)
        if at_once or inputs or self.by_length or self._prompted:
            logits_BTV, _ = self._forward([row.ids for row in conditioned], keep=width - start, inputs=inputs)
            return _collect(conditioned, logits_BTV, start)
        return self._in_parts(conditioned, width=width, size=size)

    def _in_parts(self, rows: Sequence[Row], *, width: int, size: int) -> Scores:
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

    def tree(self, groups: Sequence[Sequence[Row]]) -> Scores:
        """Contexts without their last tokens, padded on the right; then those and all continuations."""
        lengths_B = torch.tensor([group[0].shared for group in groups])
        _, cache = self._forward(
            [group[0].ids[: group[0].shared] for group in groups], keep=1, use_cache=True
        )
        more = 1 + max(tree_size(group)[1] for group in groups)
        ids_BT = torch.full((len(groups), more), self.pad_id)
        position_BT = torch.zeros_like(ids_BT)
        branch_BT = torch.full_like(ids_BT, -1)  # 0 the context, 1, 2, ... its continuations, -1 padding
        columns: list[tuple[int, Row, list[int]]] = []
        for place, group in enumerate(groups):
            length = group[0].shared + 1
            ids_BT[place, 0], position_BT[place, 0], branch_BT[place, 0] = (
                group[0].ids[length - 1],
                length - 1,
                0,
            )
            at = 1
            for branch, row in enumerate(group, start=1):
                rest = row.ids[length:]
                ids_BT[place, at : at + len(rest)] = torch.tensor(rest, dtype=torch.long)
                position_BT[place, at : at + len(rest)] = torch.arange(length, length + len(rest))
                branch_BT[place, at : at + len(rest)] = branch
                columns.append((place, row, [0, *range(at, at + len(rest))]))
                at += len(rest)
        inputs = {"attention_mask": self._tree_mask(lengths_B, branch_BT), "position_ids": position_BT}
        logits_BTV, _ = self._forward(ids_BT.tolist(), keep=more, cache=cache, inputs=inputs)
        wants = [(place, at, index, want) for place, row, at in columns for index, want in row.wants]
        lines = [place for place, _, _, want in wants for _ in want]
        found = [column for _, at, _, want in wants for column in at[len(at) - len(want) :]]
        return _scores(logits_BTV, lines, found, [(index, want) for _, _, index, want in wants])

    def _tree_mask(self, lengths_B: Tensor, branch_BT: Tensor) -> Tensor:
        """Who reads whom: the cached context, and what stands before in the same branch.

        Shapes: -> B1TS, the cache first; bool, or what eager attention adds to the scores
        """
        slot_T = torch.arange(branch_BT.shape[1])
        own = (branch_BT[:, None, :] == branch_BT[:, :, None]) | (branch_BT[:, None, :] == 0)
        own = own & (branch_BT[:, None, :] >= 0) & (slot_T[:, None] >= slot_T)
        kept_BS = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
        mask = torch.cat((kept_BS[:, None, :].expand(-1, len(slot_T), -1), own), dim=2)[:, None]
        if self._attention != "eager":
            return mask
        low = torch.finfo(self.dtype).min
        return torch.zeros(mask.shape, dtype=self.dtype).masked_fill(~mask, low)

    def copies(self, groups: Sequence[Sequence[Row]]) -> Scores:
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

    def takes_trees(self) -> bool:
        """Whether the model is one of transformers' that reads a mask and positions as they are given."""
        base: Any = getattr(self.model, "get_base_model", lambda: self.model)()
        config = getattr(base, "config", None)
        if config is None or hasattr(config, "model_spec") or getattr(config, "sliding_window", None):
            return False
        takes = inspect.signature(base.forward).parameters
        return "position_ids" in takes and "attention_mask" in takes and self._attention in ("sdpa", "eager")

    @cached_property
    def by_length(self) -> bool:
        """Whether the model reads a row by its length, so that rows share a batch only with rows as long."""
        return follows_length(self.model)

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
    def dtype(self) -> torch.dtype:
        return next(p.dtype for p in self.model.parameters() if p.is_floating_point())

    @cached_property
    def _keeps_logits(self) -> bool:
        base = getattr(self.model, "get_base_model", lambda: self.model)()
        return "logits_to_keep" in inspect.signature(base.forward).parameters


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
