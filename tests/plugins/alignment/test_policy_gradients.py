"""Losses on own samples: TRL's on the same tensors where it has them, else values worked out by hand."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from typing import Any
from unittest.mock import MagicMock

import pytest
import tiny_models as tiny
import torch
from torch import Tensor

from harness import Alignment, LogProbs, Rollouts

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

MASK_BT = torch.tensor([[1.0, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 1], [1, 1, 1, 0]])
REWARDS_B = torch.tensor([1.0, 3.0, -2.0, 0.5])


def method(name: str, **options: Any) -> Alignment:
    built: Alignment = tiny.choose("alignment", name, **options).build()
    return built


def sampled(method: Alignment, *, samples: int = 2, values_BT: Tensor | None = None) -> Rollouts:
    """Four answers that the policy has moved away from since it wrote them."""
    generator = torch.Generator().manual_seed(0)
    old_BT = -2 * torch.rand(4, 4, generator=generator) * MASK_BT
    reference_BT = -2 * torch.rand(4, 4, generator=generator) * MASK_BT
    now_BT = old_BT + 0.6 * (torch.rand(4, 4, generator=generator) - 0.5) * MASK_BT

    def rollouts(log_probs_BT: Tensor, extras: dict[str, Tensor]) -> Rollouts:
        return Rollouts(
            policy=LogProbs(per_token_BT=log_probs_BT, mask_BT=MASK_BT),
            old_BT=old_BT,
            reference_BT=reference_BT,
            rewards_B=REWARDS_B,
            samples_per_prompt=samples,
            values_BT=values_BT,
            extras=extras,
        )

    return rollouts(now_BT, method.prepare(rollouts(old_BT, {})))


def trl(kind: str, rollouts: Rollouts, advantage: Tensor, **attributes: Any) -> Tensor:
    """TRL's loss of the same samples; its trainer is a stub that knows the log-probabilities."""
    import trl as library

    now_BT = rollouts.policy.per_token_BT
    trainer = MagicMock()
    trainer._get_per_token_logps_and_entropies = lambda *a, **k: (now_BT, torch.zeros_like(now_BT), None)
    trainer._metrics = defaultdict(lambda: defaultdict(list))
    trainer.accelerator.gather = trainer.accelerator.gather_for_metrics = lambda x: x
    trainer.accelerator.reduce = lambda x, reduction: x
    trainer.aux_loss_enabled = trainer.use_vllm = trainer._entropy_bonus_enabled = False
    trainer.top_entropy_quantile, trainer.off_policy_mask_threshold = 1.0, None
    trainer.importance_sampling_level, trainer.args.delta = "token", None
    trainer.args.use_bias_correction_kl = False
    trainer.epsilon_low = trainer.epsilon_high = 0.2
    trainer.current_gradient_accumulation_steps, trainer.model.training = 1, True
    for name, value in attributes.items():
        setattr(trainer, name, value)
    ids = torch.ones_like(MASK_BT).long()
    inputs = {
        "prompt_ids": ids[:, :1],
        "prompt_mask": ids[:, :1],
        "completion_ids": ids,
        "completion_mask": MASK_BT,
        "advantages": advantage,
        "old_per_token_logps": rollouts.old_BT,
        "ref_per_token_logps": rollouts.reference_BT,
        "old_logps": (rollouts.old_BT * MASK_BT).sum(-1),
    }
    loss: Tensor = getattr(library, kind)._compute_loss(trainer, MagicMock(), inputs)
    return loss


def test_grpo_equals_trl() -> None:
    grpo = method("grpo", samples=2, beta=0.04)
    rollouts = sampled(grpo)
    # Groups (1, 3) and (-2, 0.5): deviations 1 and 1.25, over sample deviations of sqrt(2) times them.
    expected = torch.tensor([-1 / 1.414214, 1 / 1.414214, -1.25 / 1.767767, 1.25 / 1.767767])
    assert torch.allclose(rollouts.extras["advantage"], expected, atol=1e-4)
    loss_B, _ = grpo.rollout_loss(rollouts)
    theirs = trl("GRPOTrainer", rollouts, rollouts.extras["advantage"], loss_type="grpo", beta=0.04)
    assert torch.allclose(loss_B.mean(), theirs, atol=1e-6)
    other = trl("GRPOTrainer", rollouts, rollouts.extras["advantage"], loss_type="grpo", beta=0.4)
    assert not torch.allclose(loss_B.mean(), other, atol=1e-3), "the comparison sees the drift"


def test_rloo_equals_trl_and_each_sample_is_measured_by_the_others() -> None:
    rloo = method("rloo", samples=4, beta=0.1)
    rollouts = sampled(rloo, samples=4)
    drift_B = ((rollouts.old_BT - rollouts.reference_BT) * MASK_BT).sum(-1)
    net = [float(r - 0.1 * d) for r, d in zip(REWARDS_B, drift_B, strict=True)]
    by_hand = [net[i] - sum(net[j] for j in range(4) if j != i) / 3 for i in range(4)]
    assert torch.allclose(rollouts.extras["advantage"], torch.tensor(by_hand), atol=1e-6)
    loss_B, _ = rloo.rollout_loss(rollouts)
    theirs = trl("RLOOTrainer", rollouts, rollouts.extras["advantage"])
    assert torch.allclose(loss_B.mean(), theirs, atol=1e-6)


def ppo_example() -> tuple[Alignment, Rollouts]:
    """Two answers of two tokens each, the first after one position of its prompt."""
    ppo = method("ppo", kl_weight=0.1, discount=1.0, trace=0.5, clip=0.2, value_clip=0.2, value_weight=0.5)
    mask_BT = torch.tensor([[0.0, 1, 1], [1, 1, 0]])
    old_BT = torch.tensor([[0.0, -1.0, -2.0], [-0.5, -0.5, 0.0]])
    made: dict[str, Any] = {
        "old_BT": old_BT,
        "reference_BT": torch.tensor([[0.0, -1.5, -1.0], [-0.5, -0.5, 0.0]]),
        "rewards_B": torch.tensor([2.0, -1.0]),
        "samples_per_prompt": 1,
    }
    values_BT = torch.tensor([[0.0, 0.5, 1.0], [0.2, 0.4, 0.0]])
    start = Rollouts(
        policy=LogProbs(per_token_BT=old_BT, mask_BT=mask_BT), values_BT=values_BT, extras={}, **made
    )
    extras = ppo.prepare(start)
    moved_BT, valued_BT = old_BT.clone(), values_BT.clone()
    moved_BT[0, 1] += torch.tensor(1.5).log()
    valued_BT[0, 1] = 1.0
    now = LogProbs(per_token_BT=moved_BT, mask_BT=mask_BT)
    return ppo, Rollouts(policy=now, values_BT=valued_BT, extras=extras, **made)


def test_ppo_estimates_advantages_as_worked_out_by_hand() -> None:
    """Rewards by token are (-0.05, 2.1) and (0, -1); with lambda 1/2 the advantages are

    1.1 = 2.1 - 1.0 and 1.0 = (-0.05 + 1.0 - 0.5) + 1.1 / 2; -1.4 = -1 - 0.4 and -0.5 = (0.4 - 0.2) - 1.4 / 2,
    whose mean is 0.05 and whose deviation is 1.05.
    """
    _, rollouts = ppo_example()
    returns = torch.tensor([[0.0, 1.5, 2.1], [-0.3, -1.0, 0.0]])
    assert torch.allclose(rollouts.extras["returns"], returns, atol=1e-6)
    whitened = torch.tensor([[0.0, 0.95, 1.05], [-0.55, -1.45, 0.0]]) / 1.05
    assert torch.allclose(rollouts.extras["advantage"], whitened, atol=1e-6)


def test_ppo_clips_ratios_and_values_as_worked_out_by_hand() -> None:
    """The ratio 1.5 counts as 1.2; the value that moved from 0.5 to 1.0 counts as 0.7, which is worse."""
    ppo, rollouts = ppo_example()
    loss_BT, _ = ppo.rollout_loss(rollouts)
    by_hand = torch.tensor(
        [
            [0.0, -1.2 * 0.95 / 1.05 + 0.25 * 0.8**2, -1.0 + 0.25 * 1.1**2],
            [0.55 / 1.05 + 0.25 * 0.5**2, 1.45 / 1.05 + 0.25 * 1.4**2, 0.0],
        ]
    )
    assert torch.allclose(loss_BT * rollouts.policy.mask_BT, by_hand, atol=1e-6)


def test_ppos_policy_term_equals_trls_clipped_term() -> None:
    values_BT = torch.rand(4, 4, generator=torch.Generator().manual_seed(1)) * MASK_BT
    ppo = method("ppo", value_weight=0.0)
    rollouts = sampled(ppo, samples=1, values_BT=values_BT)
    loss_BT, _ = ppo.rollout_loss(rollouts)
    ours = (loss_BT * MASK_BT).sum() / MASK_BT.sum()
    theirs = trl("GRPOTrainer", rollouts, rollouts.extras["advantage"], loss_type="bnpo", beta=0.0)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("name", ["raft", "best_of_n"])
def test_only_the_best_sample_of_each_prompt_is_learned(name: str) -> None:
    """Of the groups (1, 3) and (-2, 0.5) the second answers are: the mean cross-entropy of their tokens."""
    best = method(name, samples=2)
    rollouts = sampled(best)
    loss_BT, _ = best.rollout_loss(rollouts)
    surprise_B = -(rollouts.policy.per_token_BT * MASK_BT).sum(-1)
    by_hand = (surprise_B[1] + surprise_B[3]) / (MASK_BT[1].sum() + MASK_BT[3].sum())
    assert torch.allclose(loss_BT.sum() / MASK_BT.sum(), by_hand, atol=1e-6)
    assert best.samples_from_start() is (name == "best_of_n")


def test_quark_names_quantiles_and_learns_under_them() -> None:
    quark = method("quark", quantiles=4, samples=4, beta=0.05)
    assert quark.relabel(["p"] * 4, REWARDS_B) == [f"p [reward {q} of 4]" for q in (3, 4, 1, 2)]
    assert quark.prompt("p") == "p [reward 4 of 4]"
    assert quark.relabel(["p"] * 2, torch.tensor([1.0, 1.0])) == ["p [reward 1 of 4]"] * 2, "ties are equals"
    rollouts = sampled(quark, samples=4)
    loss_BT, _ = quark.rollout_loss(rollouts)
    for row in range(4):
        for t in range(int(MASK_BT[row].sum())):
            p, r = float(rollouts.policy.per_token_BT[row, t]), float(rollouts.reference_BT[row, t])
            by_hand = -p + 0.05 * (math.exp(r - p) - (r - p) - 1)
            assert float(loss_BT[row, t]) == pytest.approx(by_hand, abs=1e-6)


def test_quarks_best_samples_are_what_its_prompt_asks_for_also_where_most_tie() -> None:
    quark = method("quark", quantiles=4, samples=4)
    found = quark.relabel(["p"] * 5, torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]))
    assert found == [f"p [reward {q} of 4]" for q in (4, 4, 4, 1, 1)]


def test_chain_of_hindsight_is_the_mean_cross_entropy_of_both_stories() -> None:
    hindsight = method("chain_of_hindsight")
    parts = {
        "chosen": LogProbs(
            per_token_BT=torch.tensor([[-1.0, -2.0, 0.0]]), mask_BT=torch.tensor([[1.0, 1, 0]])
        ),
        "rejected": LogProbs(
            per_token_BT=torch.tensor([[-3.0, -1.0, -2.0]]), mask_BT=torch.tensor([[1.0, 1, 1]])
        ),
    }
    loss_B, _ = hindsight.loss(parts, {})
    assert loss_B.tolist() == [1.75], "(3 / 2 + 6 / 3) / 2"


def test_rrhf_by_hand() -> None:
    """Averages -1.5 (chosen) and -1.0 (rejected) stand the wrong way round by 0.5, -1 and -2 do not."""
    rrhf = method("rrhf", rank_weight=2.0)
    mask_BT = torch.tensor([[1.0, 1], [1, 0]])
    parts = {
        "chosen": LogProbs(per_token_BT=torch.tensor([[-1.0, -2.0], [-1.0, 0.0]]), mask_BT=mask_BT),
        "rejected": LogProbs(per_token_BT=torch.tensor([[-0.5, -1.5], [-2.0, 0.0]]), mask_BT=mask_BT),
    }
    loss_B, _ = rrhf.loss(parts, {})
    assert loss_B.tolist() == [2 * 0.5 + 1.5, 1.0]
