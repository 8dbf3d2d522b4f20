"""Conversations as training batches: answers are learned, prompts are read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from harness.axes.corpus import Split
from harness.data.packing import best_fit
from harness.data.template import IGNORED, Template
from harness.errors import ConfigError, DataError
from harness.rng import Purpose

if TYPE_CHECKING:
    from harness.axes.instruction import Conversation
    from harness.stage import Work
    from harness.training.contract import Batch, BatchSource

T = TypeVar("T")

Encoded = tuple[np.ndarray, np.ndarray]
"""Token ids and unshifted labels of one conversation (T each)."""


@dataclass(kw_only=True)
class EncodedAll:
    """Encoded conversations by id, and what of the data did not fit."""

    by_id: dict[str, Encoded]
    left_out: Counter[str]
    """Conversations that are not learned, by reason."""
    cut: int = 0
    """Conversations that lost their end at the window."""
    cut_tokens: int = 0
    """Answer tokens lost with it."""

    def facts(self) -> dict[str, Any]:
        """Counts for the record."""
        return {
            "conversations": len(self.by_id),
            "conversations_dropped": sum(self.left_out.values()),
            "conversations_dropped_by_reason": dict(self.left_out),
            "conversations_cut": self.cut,
            "answer_tokens_cut": self.cut_tokens,
        }


def encode_all(conversations: Sequence[Conversation], template: Template, *, length: int) -> EncodedAll:
    """Encoded conversations by id, cut to `length` + 1 tokens; those without an answer left are dropped.

    Raises: DataError if none is left
    """
    found = EncodedAll(by_id={}, left_out=Counter())
    example = ""
    for conversation in conversations:
        if conversation.id in found.by_id:
            continue
        try:
            ids_T, labels_T = template.encode(conversation)
        except DataError as error:
            found.left_out["the chat template refuses it"] += 1
            example = example or f"; first refusal: {conversation.id}: {error}"
            continue
        lost = int((labels_T[length + 1 :] != IGNORED).sum())
        ids_T, labels_T = ids_T[: length + 1], labels_T[: length + 1]
        if (labels_T[1:] == IGNORED).all():
            found.left_out["no answer within the window"] += 1
            continue
        found.cut += bool(lost)
        found.cut_tokens += lost
        found.by_id[conversation.id] = ids_T, labels_T
    if not found.by_id:
        raise DataError(
            f"no conversation has an answer within sequence_length={length} tokens "
            f"({dict(found.left_out)}); raise sequence_length or choose another instruction source{example}"
        )
    return found


def read_conversations(work: Work) -> tuple[list[Conversation], dict[str, int]]:
    """All conversations of the chosen sources, of all splits, and how many entries gave none, by reason."""
    from harness.data import documents

    chosen = work.one("instruction").build()
    corpus = work.inputs.get("documents")
    texts = documents.read(corpus.path) if corpus is not None else []
    found = list(chosen.conversations(texts, work.stream(Purpose.sampling)))
    return found, dict(chosen.left_out)


def training_conversations(work: Work) -> list[Conversation]:
    """The training split of the chosen instruction source.

    Raises: DataError where it is empty
    """
    return of_split(read_conversations(work)[0], Split.train, work)


def of_split(conversations: Sequence[Conversation], split: Split, work: Work) -> list[Conversation]:
    """The conversations of one split.

    Raises: DataError where there is none
    """
    found = [conversation for conversation in conversations if conversation.split is split]
    if not found:
        raise DataError(f"instruction={work.one('instruction').method.name} gave no {split} conversation")
    return found


def spread(items: Sequence[T], most: int) -> list[T]:
    """At most `most` of the items, evenly over their order, since sources list one kind after another."""
    number = min(most, len(items))
    return [items[index * len(items) // number] for index in range(number)]


class ConversationSource:
    """Epochs of conversations in the order a strategy gives, one or several to a sequence.

    Shapes: B x T, T the longest row of the batch
    State: epoch and position; the order of an epoch follows from the seed and its number
    """

    def __init__(
        self,
        encoded: dict[str, Encoded],
        schedule: Callable[[np.random.Generator], list[Conversation]],
        *,
        seed: int,
        length: int,
        packs: bool,
        best_fit: bool = False,
        pad_id: int,
        bytes_per_token: float,
        document_ids: bool,
    ) -> None:
        self.encoded, self.schedule, self.seed = encoded, schedule, seed
        self.length, self.packs, self.best_fit, self.pad_id = length, packs, best_fit, pad_id
        self.bytes_per_token, self.document_ids = bytes_per_token, document_ids
        self.epoch = self.position = 0
        self._rows = self._epoch_rows()
        self.num_samples = len(self._rows)

    def next(self, size: int) -> Batch:
        """The next `size` sequences; the last of an epoch are followed by the first of the next."""
        return self.next_rows(size, slice(0, size))

    def next_rows(self, size: int, rows: slice) -> Batch:
        """The next `size` sequences, of which these rows are built, as wide as the widest of all."""
        drawn: list[list[Encoded]] = []
        while len(drawn) < size:
            if self.position == len(self._rows):
                self.epoch, self.position = self.epoch + 1, 0
                self._rows = self._epoch_rows()
            drawn.append(self._rows[self.position])
            self.position += 1
        tokens = [sum(len(ids) - 1 for ids, _ in items) for items in drawn]
        return self._collate(drawn[rows], width=max(tokens)) | {"num_tokens": torch.tensor(tokens)}

    def learned_per_epoch(self) -> int:
        """Learned tokens of the current epoch."""
        return sum(int((labels[1:] != IGNORED).sum()) for row in self._rows for _, labels in row)

    def padding_share(self) -> float:
        """Share of padding in the sequences of the current epoch, were each as long as allowed."""
        tokens = sum(len(ids) - 1 for row in self._rows for ids, _ in row)
        return 1 - tokens / (len(self._rows) * self.length)

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same sequences."""
        self.epoch = state["epoch"]
        self._rows = self._epoch_rows()
        self.position = state["position"]

    def _epoch_rows(self) -> list[list[Encoded]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = self.schedule(rng)
        items = [self.encoded[c.id] for c in order if c.id in self.encoded]
        if not items:
            raise DataError(
                "instruction_strategy scheduled no conversation; its weights leave nothing to learn"
            )
        if not self.packs:
            return [[item] for item in items]
        if self.best_fit:
            bins = best_fit([len(ids) - 1 for ids, _ in items], capacity=self.length)
            return [[items[index] for index in bins[place]] for place in rng.permutation(len(bins))]
        rows: list[list[Encoded]] = []
        room = 0
        for item in items:
            width = len(item[0]) - 1
            if width > room or not rows:
                rows.append([])
                room = self.length
            rows[-1].append(item)
            room -= width
        return rows

    def _collate(self, rows: list[list[Encoded]], *, width: int) -> Batch:
        shape = (len(rows), width)
        ids_BT = np.full(shape, self.pad_id, dtype=np.int64)
        labels_BT = np.full(shape, IGNORED, dtype=np.int64)
        mask_BT, documents_BT, positions_BT = (np.zeros(shape, dtype=np.int64) for _ in range(3))
        for row, items in enumerate(rows):
            at = 0
            for number, (ids_T, labels_T) in enumerate(items):
                end = at + len(ids_T) - 1
                ids_BT[row, at:end], labels_BT[row, at:end] = ids_T[:-1], labels_T[1:]
                mask_BT[row, at:end], documents_BT[row, at:end] = 1, number
                positions_BT[row, at:end] = np.arange(end - at)
                at = end
            documents_BT[row, at:] = len(items)
            positions_BT[row, at:] = np.arange(width - at)
        batch: dict[str, np.ndarray] = {"input_ids": ids_BT, "labels_BT": labels_BT}
        if not self.packs:
            batch["attention_mask"] = mask_BT
        else:  # Hugging Face models tell documents apart by positions that start again
            batch["position_ids"] = positions_BT
            if self.document_ids:
                batch["document_ids"] = documents_BT
        return {name: torch.from_numpy(value) for name, value in batch.items()}


class MixedSource:
    """A share of pretraining windows among conversations, padded to one width.

    The share is of the tokens that are learned. An epoch meets every conversation once.
    State: that of both sources, and the learned tokens drawn from each
    """

    def __init__(
        self, conversations: ConversationSource, pretraining: BatchSource, *, share: float, pad_id: int
    ) -> None:
        if not 0 < share < 1:
            raise ConfigError(f"the pretraining share {share} must be between 0 and 1")
        self.conversations, self.pretraining, self.share, self.pad_id = (
            conversations,
            pretraining,
            share,
            pad_id,
        )
        self.bytes_per_token = conversations.bytes_per_token
        windows = conversations.learned_per_epoch() * share / (1 - share) / conversations.length
        self.num_samples = conversations.num_samples + round(windows)
        self.learned = {"conversations": 0, "pretraining": 0}

    def next(self, size: int) -> Batch:
        """`size` sequences, of whose learned tokens the stated share is pretraining data in the long run."""
        parts = []
        for _ in range(size):
            # A window comes once the share that it would make up is not above what was asked for.
            with_window = self.learned["pretraining"] + self.conversations.length
            total = with_window + self.learned["conversations"]
            kind = "pretraining" if with_window <= self.share * total else "conversations"
            part = (self.pretraining if kind == "pretraining" else self.conversations).next(1)
            self.learned[kind] += int((part["labels_BT"] != IGNORED).sum())
            parts.append(part)
        return self._join(parts)

    def facts(self) -> dict[str, Any]:
        """What was drawn so far."""
        return {"pretraining_token_share": self.learned["pretraining"] / max(1, sum(self.learned.values()))}

    def state_dict(self) -> dict[str, Any]:
        """Both sources and the counts."""
        return {
            "conversations": self.conversations.state_dict(),
            "pretraining": self.pretraining.state_dict(),
            "learned": dict(self.learned),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue both."""
        self.conversations.load_state_dict(state["conversations"])
        self.pretraining.load_state_dict(state["pretraining"])
        self.learned = dict(state["learned"])

    def _join(self, parts: list[Batch]) -> Batch:
        from harness.training.contract import num_tokens

        width = max(part["input_ids"].shape[1] for part in parts)
        fills = {"input_ids": self.pad_id, "labels_BT": IGNORED, "attention_mask": 0}
        names = [n for n in fills if n != "attention_mask" or not self.conversations.packs]
        names += [n for n in ("document_ids", "position_ids") if any(n in part for part in parts)]
        counts = [part.get("num_tokens", torch.tensor([num_tokens(part)])) for part in parts]
        joined: dict[str, Tensor] = {"num_tokens": torch.cat(counts)}
        for name in names:
            rows = []
            for part in parts:
                value = part.get(name)
                if value is None:
                    value = _default(name, part["input_ids"])
                rows.append(_widen(name, value, width, fills.get(name)))
            joined[name] = torch.cat(rows)
        return joined


def _default(name: str, ids_BT: Tensor) -> Tensor:
    if name == "attention_mask":
        return torch.ones_like(ids_BT)
    if name == "position_ids":
        return torch.arange(ids_BT.shape[1]).expand_as(ids_BT)
    return torch.zeros_like(ids_BT)


def _widen(name: str, value_BT: Tensor, width: int, fill: int | None) -> Tensor:
    extra = width - value_BT.shape[1]
    if not extra:
        return value_BT
    if fill is not None:
        return torch.nn.functional.pad(value_BT, (0, extra), value=fill)
    if name == "document_ids":  # padding is a document of its own
        tail_B1 = value_BT.amax(dim=1, keepdim=True) + 1
        return torch.cat([value_BT, tail_B1.expand(-1, extra)], dim=1)
    return torch.cat([value_BT, torch.arange(extra).expand(len(value_BT), -1)], dim=1)
