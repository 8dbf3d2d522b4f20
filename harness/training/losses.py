"""Losses that several stages share."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from harness.data.template import IGNORED
from harness.model.conditioning import conditioned
from harness.training.contract import Batch, LossSum


def language_modeling_loss(model: nn.Module, batch: Batch) -> LossSum:
    """Summed cross-entropy of the labelled tokens.

    Units: nats
    """
    labels_BT = batch["labels_BT"]
    inputs = {name: value for name, value in batch.items() if name != "labels_BT"}
    logits_BTV = model(**inputs, use_cache=False).logits
    if logits_BTV.dtype in (torch.float16, torch.bfloat16):
        logits_BTV = logits_BTV.float()
    total = F.cross_entropy(
        logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    return LossSum(total, (labels_BT != IGNORED).sum(), {})


def conversation_loss(model: nn.Module, batch: Batch) -> LossSum:
    """Summed cross-entropy of the answers' tokens, their prompts read as the architecture reads one.

    Units: nats
    """
    return language_modeling_loss(model, {**conditioned(model, **batch), "labels_BT": batch["labels_BT"]})
