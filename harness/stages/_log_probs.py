"""Log-probabilities of answers, and the loss of an alignment method on those of pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.axes.alignment import Alignment, LogProbs
from harness.data.template import IGNORED
from harness.model.conditioning import conditioned
from harness.training.contract import Batch, LossSum

Reference = Callable[[], AbstractContextManager[nn.Module]]
"""Enters a context that yields the reference model."""


def per_token_log_probs(logits_BTV: Tensor, labels_BT: Tensor, *, temperature: float = 1.0) -> LogProbs:
    """Log-probabilities of the labelled tokens at a temperature; labels are shifted already."""
    kept_BT = labels_BT != IGNORED
    logits_NV = logits_BTV[kept_BT].float() / temperature
    per_token_N = -F.cross_entropy(logits_NV, labels_BT[kept_BT], reduction="none")
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
