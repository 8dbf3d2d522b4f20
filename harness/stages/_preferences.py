"""Preferences as training batches, and the loss of an alignment method on them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.axes.alignment import Alignment, LogProbs
from harness.axes.instruction import Conversation, Role, Turn
from harness.data.template import IGNORED, Template
from harness.errors import DataError
from harness.training.contract import Batch, LossSum

if TYPE_CHECKING:
    from harness.axes.reward import Preference

Reference = Callable[[], AbstractContextManager[nn.Module]]
"""Enters a context that yields the reference model."""


def encode_answer(
    template: Template, prompt: str, answer: str, *, length: int
) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and shifted labels of one answered prompt, at most `length` positions."""
    turns = (Turn(role=Role.user, text=prompt), Turn(role=Role.assistant, text=answer))
    ids_T, labels_T = template.encode(Conversation(id="", turns=turns, source=""))
    return ids_T[:-1][:length], labels_T[1:][:length]


def pad_rows(rows: Sequence[tuple[np.ndarray, np.ndarray]], *, pad_id: int, prefix: str = "") -> Batch:
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

    Shapes: `<part>_input_ids`, `<part>_attention_mask`, `<part>_labels_BT` with part chosen, rejected and,
    where asked for, mismatched (the prompt with the answer of the row before)
    State: epoch and position
    """

    def __init__(
        self,
        preferences: Sequence[Preference],
        template: Template,
        *,
        seed: int,
        length: int,
        pad_id: int,
        mismatched: bool = False,
    ) -> None:
        self.seed, self.pad_id, self.mismatched = seed, pad_id, mismatched
        self.template, self.length = template, length
        self.pairs: list[tuple[Preference, tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = []
        self.dropped = 0
        num_bytes = num_tokens = 0
        for preference in preferences:
            chosen = encode_answer(template, preference.prompt, preference.chosen, length=length)
            rejected = encode_answer(template, preference.prompt, preference.rejected, length=length)
            if any((labels == IGNORED).all() for _, labels in (chosen, rejected)):
                self.dropped += 1
                continue
            self.pairs.append((preference, chosen, rejected))
            num_bytes += 2 * len(preference.prompt.encode())
            num_bytes += len(preference.chosen.encode()) + len(preference.rejected.encode())
            num_tokens += len(chosen[0]) + len(rejected[0])
        if not self.pairs:
            raise DataError(
                f"no preference of {len(preferences)} has both answers within {length} tokens; raise the "
                "stage's sequence_length or choose another feedback"
            )
        self.num_sequences = len(self.pairs)
        self.bytes_per_token = num_bytes / num_tokens
        self.epoch = self.position = 0
        self._order = self._permutation()

    def next(self, size: int) -> Batch:
        """The next `size` pairs."""
        rows = []
        for _ in range(size):
            if self.position == len(self.pairs):
                self.epoch, self.position = self.epoch + 1, 0
                self._order = self._permutation()
            rows.append(self.pairs[self._order[self.position]])
            self.position += 1
        batch = pad_rows([chosen for _, chosen, _ in rows], pad_id=self.pad_id, prefix="chosen_")
        batch |= pad_rows([rejected for _, _, rejected in rows], pad_id=self.pad_id, prefix="rejected_")
        if self.mismatched:
            answers = [rows[i - 1][0].chosen for i in range(len(rows))]
            encoded = [
                encode_answer(self.template, p.prompt, answer, length=self.length)
                for (p, _, _), answer in zip(rows, answers, strict=True)
            ]
            batch |= pad_rows(encoded, pad_id=self.pad_id, prefix="mismatched_")
        return batch

    def state_dict(self) -> dict[str, Any]:
        """Epoch and position."""
        return {"epoch": self.epoch, "position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same pairs."""
        self.epoch, self.position = state["epoch"], state["position"]
        self._order = self._permutation()

    def _permutation(self) -> np.ndarray:
        return np.random.default_rng([self.seed, self.epoch]).permutation(len(self.pairs))


def log_probs(model: nn.Module, input_ids: Tensor, attention_mask: Tensor, labels_BT: Tensor) -> LogProbs:
    """Log-probabilities of the labelled tokens.

    Shapes: all B x T; labels are shifted already
    """
    logits_BTV = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits
    kept_BT = labels_BT != IGNORED
    per_token_N = -F.cross_entropy(logits_BTV[kept_BT].float(), labels_BT[kept_BT], reduction="none")
    per_token_BT = torch.zeros(labels_BT.shape, dtype=per_token_N.dtype, device=labels_BT.device)
    return LogProbs(per_token_BT=per_token_BT.masked_scatter(kept_BT, per_token_N), mask_BT=kept_BT.float())


def answers_log_probs(model: nn.Module, batch: Batch, parts: Sequence[str]) -> dict[str, LogProbs]:
    """Log-probabilities of several parts of a preference batch, in one pass through the model."""
    width = max(batch[f"{part}_input_ids"].shape[1] for part in parts)

    def joined(name: str, fill: int) -> Tensor:
        rows = [batch[f"{part}_{name}"] for part in parts]
        return torch.cat([F.pad(row, (0, width - row.shape[1]), value=fill) for row in rows])

    both = log_probs(model, joined("input_ids", 0), joined("attention_mask", 0), joined("labels_BT", IGNORED))
    tokens = both.per_token_BT.chunk(len(parts))
    masks = both.mask_BT.chunk(len(parts))
    return {
        part: LogProbs(per_token_BT=t, mask_BT=m) for part, t, m in zip(parts, tokens, masks, strict=True)
    }


def preference_loss(method: Alignment, reference: Reference | None) -> Callable[[nn.Module, Batch], LossSum]:
    """The training loop's loss for a method that learns from pairs."""

    def loss(model: nn.Module, batch: Batch) -> LossSum:
        parts = ["chosen", "rejected"] + ["mismatched"] * method.needs_mismatched
        policy = answers_log_probs(model, batch, parts)
        frozen: dict[str, LogProbs] = {}
        if reference is not None:
            with torch.no_grad(), reference() as other:
                frozen = answers_log_probs(other, batch, parts)
        loss_B, facts = method.loss(
            chosen=policy["chosen"],
            rejected=policy["rejected"],
            reference_chosen=frozen.get("chosen"),
            reference_rejected=frozen.get("rejected"),
            mismatched=policy.get("mismatched"),
            reference_mismatched=frozen.get("mismatched"),
        )
        count = torch.tensor(float(len(loss_B)), device=loss_B.device)
        return LossSum(loss_B.sum(), count, {name: value.detach().sum() for name, value in facts.items()})

    return loss
