"""The loss of an alignment method on samples, and the log-probabilities it is made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from harness.axes.alignment import Alignment, LogProbs, Rollouts
from harness.model.conditioning import conditioned
from harness.stages._log_probs import per_token_log_probs
from harness.training.contract import Batch, LossSum


def forward(
    model: nn.Module, batch: Batch, *, values: bool, temperature: float
) -> tuple[LogProbs, Tensor | None]:
    """Log-probabilities of the answers as they are sampled and, where asked for, the value head's output."""
    read = {name: batch[name] for name in ("input_ids", "attention_mask", "labels_BT")}
    inputs = conditioned(model, **read)
    out = model(**inputs, use_cache=False, output_hidden_states=values)
    found = per_token_log_probs(out.logits, batch["labels_BT"], temperature=temperature)
    if not values:
        return found, None
    values_BT: Tensor = model.value_head(out.hidden_states[-1].float())[..., 0]  # type: ignore[operator]
    return found, values_BT * found.mask_BT


def rollout_loss(
    method: Alignment, *, samples_per_prompt: int, temperature: float
) -> Callable[[nn.Module, Batch], LossSum]:
    """The training loop's loss for a method that learns from its own samples.

    A loss of B items is averaged over samples, one of B x T over the answers' tokens.
    """

    def loss(model: nn.Module, batch: Batch) -> LossSum:
        policy, values_BT = forward(model, batch, values=method.needs_values, temperature=temperature)
        extras = {k.removeprefix("extra_"): v for k, v in batch.items() if k.startswith("extra_")}
        rollouts = Rollouts(
            policy=policy,
            old_BT=batch["old_BT"],
            reference_BT=batch["reference_BT"],
            rewards_B=batch["rewards_B"],
            samples_per_prompt=samples_per_prompt,
            values_BT=values_BT,
            extras=extras,
        )
        items, facts = method.rollout_loss(rollouts)
        facts = {"reward": rollouts.rewards_B, **facts}
        if items.ndim == 1:
            count = torch.tensor(float(len(items)), device=items.device)
            return LossSum(items.sum(), count, {name: f.detach().sum() for name, f in facts.items()})
        tokens = policy.mask_BT.sum()
        share = tokens / len(rollouts.rewards_B)  # facts are means over samples, the count is of tokens
        return LossSum(
            (items * policy.mask_BT).sum(), tokens, {n: f.detach().sum() * share for n, f in facts.items()}
        )

    return loss
