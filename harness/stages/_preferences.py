"""Preferences as training batches, and the loss of an alignment method on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.axes.alignment import Alignment, LogProbs
from harness.axes.instruction import Conversation, Turn
from harness.data.template import IGNORED, Template
from harness.errors import DataError
from harness.model.conditioning import conditioned
from harness.rng import Purpose
from harness.training.contract import Batch, LossSum

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.axes.reward import Preference
    from harness.stage import Work

Reference = Callable[[], AbstractContextManager[nn.Module]]
"""Enters a context that yields the reference model."""


Row = tuple[np.ndarray, np.ndarray]
"""Inputs and shifted labels of one sequence (T each)."""


def encode_turns(template: Template, turns: tuple[Turn, ...], *, length: int) -> Row:
    """Inputs and shifted labels of a conversation, at most `length` positions."""
    ids_T, labels_T = template.encode(Conversation(id="", turns=turns, source=""))
    return ids_T[:-1][:length], labels_T[1:][:length]


def pad_rows(rows: Sequence[Row], *, pad_id: int, prefix: str = "") -> Batch:
    """Encoded answers as `input_ids`, `attention_mask` and `labels_BT`, padded right."""
    width = max(len(ids) for ids, _ in rows)
    ids_BT = np.full((len(rows), width), pad_id, dtype=np.int64)
    labels_BT = np.full((len(rows), width), IGNORED, dtype=np.int64)
    mask_BT = np.zeros((len(rows), width), dtype=np.int64)
    for row, (ids_T, labels_T) in enumerate(rows):
        ids_BT[row, : len(ids_T)], labels_BT[row, : len(ids_T)] = ids_T, labels_T
        mask_BT[row, : len(ids_T)] = 1
    arrays = {"input_ids": ids_BT, "attention_mask": mask_BT, "labels_BT": labels_BT}
    return {prefix + name: torch.from_numpy(value) for name, value in arrays.items()}


class PreferenceSource:
    """Epochs of preference pairs in random order.

    Shapes: `<part>_input_ids`, `<part>_attention_mask`, `<part>_labels_BT` for each of the method's parts;
    mismatched is the prompt with the chosen answer of the row before
    State: epoch and position
    """

    def __init__(
        self,
        preferences: Sequence[Preference],
        method: Alignment,
        template: Template,
        *,
        seed: int,
        length: int,
        pad_id: int,
    ) -> None:
        self.method, self.template = method, template
        self.seed, self.length, self.pad_id = seed, length, pad_id
        self.pairs: list[tuple[Preference, dict[str, Row]]] = []
        self.dropped = num_bytes = num_tokens = 0
        for preference in preferences:
            turns = method.turns(preference)
            rows = {part: encode_turns(template, turns[part], length=length) for part in turns}
            if any((labels == IGNORED).all() for _, labels in rows.values()):
                self.dropped += 1
                continue
            self.pairs.append((preference, rows))
            num_bytes += sum(len(turn.text.encode()) for part in turns.values() for turn in part)
            num_tokens += sum(len(ids) for ids, _ in rows.values())
        if not self.pairs:
            raise DataError(
                f"no preference of {len(preferences)} has both answers within {length} tokens; raise the "
                "stage's sequence_length or choose another feedback"
            )
        self.num_samples = len(self.pairs)
        self.bytes_per_token = num_bytes / num_tokens
        self.epoch = self.position = 0
        self._order = self._permutation()

    def next(self, size: int) -> Batch:
        """The next `size` pairs."""
        drawn = []
        for _ in range(size):
            if self.position == len(self.pairs):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._permutation()
            drawn.append(self.pairs[self._order[self.position]])
            self.position += 1
        batch: Batch = {}
        for part in self.method.parts:
            rows = self._mismatched(drawn) if part == "mismatched" else [rows[part] for _, rows in drawn]
            batch |= pad_rows(rows, pad_id=self.pad_id, prefix=f"{part}_")
        return batch

    def _mismatched(self, drawn: Sequence[tuple[Preference, dict[str, Row]]]) -> list[Row]:
        swapped = [replace(p, chosen=drawn[i - 1][0].chosen) for i, (p, _) in enumerate(drawn)]
        return [
            encode_turns(self.template, self.method.turns(p)["chosen"], length=self.length) for p in swapped
        ]

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same pairs."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._permutation()

    def _permutation(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.pairs))


def per_token_log_probs(logits_BTV: Tensor, labels_BT: Tensor) -> LogProbs:
    """Log-probabilities of the labelled tokens; labels are shifted already."""
    kept_BT = labels_BT != IGNORED
    per_token_N = -F.cross_entropy(logits_BTV[kept_BT].float(), labels_BT[kept_BT], reduction="none")
    per_token_BT = torch.zeros(labels_BT.shape, dtype=per_token_N.dtype, device=labels_BT.device)
    return LogProbs(per_token_BT=per_token_BT.masked_scatter(kept_BT, per_token_N), mask_BT=kept_BT.float())


def joined_parts(batch: Batch, parts: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
    """Ids, attention mask and labels of several parts below each other, padded to one width."""
    width = max(batch[f"{part}_input_ids"].shape[1] for part in parts)

    def joined(name: str, fill: int) -> Tensor:
        rows = [batch[f"{part}_{name}"] for part in parts]
        return torch.cat([F.pad(row, (0, width - row.shape[1]), value=fill) for row in rows])

    return joined("input_ids", 0), joined("attention_mask", 0), joined("labels_BT", IGNORED)


def answers_log_probs(model: nn.Module, batch: Batch, parts: Sequence[str]) -> dict[str, LogProbs]:
    """Log-probabilities of several parts of a preference batch, in one pass through the model."""
    ids_BT, mask_BT, labels_BT = joined_parts(batch, parts)
    inputs = conditioned(model, input_ids=ids_BT, attention_mask=mask_BT, labels_BT=labels_BT)
    logits_BTV = model(**inputs, use_cache=False).logits
    both = per_token_log_probs(logits_BTV, labels_BT)
    tokens = both.per_token_BT.chunk(len(parts))
    masks = both.mask_BT.chunk(len(parts))
    return {
        part: LogProbs(per_token_BT=t, mask_BT=m) for part, t, m in zip(parts, tokens, masks, strict=True)
    }


def preference_loss(method: Alignment, reference: Reference | None) -> Callable[[nn.Module, Batch], LossSum]:
    """The training loop's loss for a method that learns from pairs."""

    def loss(model: nn.Module, batch: Batch) -> LossSum:
        policy = answers_log_probs(model, batch, method.parts)
        frozen: dict[str, LogProbs] = {}
        if reference is not None:
            with torch.no_grad(), reference() as other:
                frozen = answers_log_probs(other, batch, method.parts)
        loss_B, facts = method.loss(policy, frozen)
        count = torch.tensor(float(len(loss_B)), device=loss_B.device)
        return LossSum(loss_B.sum(), count, {name: value.detach().sum() for name, value in facts.items()})

    return loss


def preference_source(work: Work, tokenizer: PreTrainedTokenizerBase, method: Alignment) -> PreferenceSource:
    """Batches of preferences from the chosen feedback.

    Raises: DataError where it gives none
    """
    from harness.stages.instruct import training_conversations

    feedback = work.one("feedback").build()
    conversations = training_conversations(work)
    found = list(feedback.preferences(conversations, work.stream(Purpose.sampling)))
    if not found:
        raise DataError(f"feedback={feedback.name} gave no preference on {len(conversations)} conversations")
    return PreferenceSource(
        found,
        method,
        Template(tokenizer),  # type: ignore[arg-type]
        seed=work.stream(Purpose.data_order),
        length=work.config.sequence_length,
        pad_id=tokenizer.pad_token_id or 0,
    )
