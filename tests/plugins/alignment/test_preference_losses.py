"""Losses on pairs against TRL's on the same tensors, else against the paper's equation in float64."""

import os
from collections import defaultdict
from collections.abc import Callable
from typing import Any
from unittest.mock import MagicMock

import pytest
import tiny_models as tiny
import torch
from torch import Tensor
from torch.nn import functional as F

from harness import Alignment, ConfigError, LogProbs, Preference

os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

B, T = 5, 7


def draw(seed: int) -> dict[str, LogProbs]:
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for part in ("chosen", "rejected", "mismatched"):
        lengths = torch.Generator().manual_seed({"chosen": 1, "rejected": 2, "mismatched": 3}[part])
        mask = (torch.arange(T) < torch.randint(2, T + 1, (B, 1), generator=lengths)).float()
        per_token = -2 * torch.rand(B, T, generator=generator) * mask
        found[part] = LogProbs(per_token_BT=per_token, mask_BT=mask)
    return found


@pytest.fixture
def policy() -> dict[str, LogProbs]:
    return draw(0)


@pytest.fixture
def reference() -> dict[str, LogProbs]:
    return draw(1)


def method(name: str, **options: Any) -> Alignment:
    built: Alignment = tiny.choose("alignment", name, **options).build()
    return built


def stub(**attributes: Any) -> MagicMock:
    """A trainer with these attributes; everything else swallows what it is given."""
    trainer = MagicMock()
    trainer._metrics = defaultdict(lambda: defaultdict(list))
    trainer.accelerator.device = torch.device("cpu")
    trainer.accelerator.gather_for_metrics = trainer.accelerator.gather = lambda x: x
    trainer.aux_loss_enabled, trainer.ld_alpha, trainer.precompute_ref_logps = False, None, True
    trainer.use_weighting = False
    trainer.model.training = True
    trainer.state.num_input_tokens_seen = 0
    for name, value in attributes.items():
        setattr(trainer, name, value)
    return trainer


def outputs(log_probs: Tensor) -> Callable[..., Any]:
    answer = MagicMock()
    answer.log_probs, answer.entropy = log_probs, torch.zeros_like(log_probs)
    answer.mean_logits, answer.is_top1 = torch.zeros_like(log_probs), log_probs > 0
    return lambda **inputs: answer


def completion(*parts: LogProbs) -> dict[str, Tensor]:
    mask = F.pad(torch.cat([p.mask_BT for p in parts]), (1, 0))
    return {"input_ids": torch.ones_like(mask).long(), "completion_mask": mask, "attention_mask": mask}


def trl_dpo(
    kind: str, policy: dict[str, LogProbs], reference: dict[str, LogProbs], **attributes: Any
) -> Tensor:
    from trl import DPOTrainer

    chosen, rejected = policy["chosen"], policy["rejected"]
    inputs = completion(chosen, rejected) | {
        "ref_chosen_logps": reference["chosen"].sum(),
        "ref_rejected_logps": reference["rejected"].sum(),
    }
    trainer = stub(f_divergence_type="reverse_kl", loss_types=[kind], loss_weights=[1.0], **attributes)
    model = outputs(torch.cat([chosen.per_token_BT, rejected.per_token_BT]))
    loss: Tensor = DPOTrainer._compute_loss(trainer, model, inputs, False)
    return loss


@pytest.mark.parametrize("name", ["dpo", "ipo"])
def test_dpo_and_ipo_equal_trl(
    name: str, policy: dict[str, LogProbs], reference: dict[str, LogProbs]
) -> None:
    loss_B, facts = method(name, beta=0.3).loss(policy, reference)
    kind = {"dpo": "sigmoid", "ipo": "ipo"}[name]
    expected = trl_dpo(kind, policy, reference, beta=0.3, label_smoothing=0.0)
    assert torch.allclose(loss_B.mean(), expected, atol=1e-5)
    assert all(fact.shape == (B,) for fact in facts.values())


def test_smoothed_dpo_is_a_mixture_of_both_labels(
    policy: dict[str, LogProbs], reference: dict[str, LogProbs]
) -> None:
    smooth, _ = method("dpo", label_smoothing=0.2).loss(policy, reference)
    plain, _ = method("dpo").loss(policy, reference)

    def flipped(pair: dict[str, LogProbs]) -> dict[str, LogProbs]:
        return {"chosen": pair["rejected"], "rejected": pair["chosen"]}

    other, _ = method("dpo").loss(flipped(policy), flipped(reference))
    assert torch.allclose(smooth, 0.8 * plain + 0.2 * other)


def test_robust_dpo_equals_trl(policy: dict[str, LogProbs], reference: dict[str, LogProbs]) -> None:
    loss_B, _ = method("robust_dpo", beta=0.3, label_smoothing=0.2).loss(policy, reference)
    expected = trl_dpo("robust", policy, reference, beta=0.3, label_smoothing=0.2)
    assert torch.allclose(loss_B.mean(), expected, atol=1e-5)


def test_robust_dpo_is_dpo_on_average_over_flipped_labels(
    policy: dict[str, LogProbs], reference: dict[str, LogProbs]
) -> None:
    """Chowdhury et al. 2024: with a share of labels flipped, its expectation is the loss without flips."""
    robust = method("robust_dpo", label_smoothing=0.3)

    def flipped(pair: dict[str, LogProbs]) -> dict[str, LogProbs]:
        return {"chosen": pair["rejected"], "rejected": pair["chosen"]}

    as_labelled, _ = robust.loss(policy, reference)
    the_other_way, _ = robust.loss(flipped(policy), flipped(reference))
    clean, _ = method("dpo").loss(policy, reference)
    assert torch.allclose(0.7 * as_labelled + 0.3 * the_other_way, clean, atol=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_robust_dpo_refuses_a_share_of_flips_that_it_cannot_undo(share: float) -> None:
    with pytest.raises(ConfigError, match=rf"label_smoothing={share} must be above 0 and below 0.5"):
        method("robust_dpo", label_smoothing=share)


def test_kto_equals_trl(policy: dict[str, LogProbs], reference: dict[str, LogProbs]) -> None:
    from trl import KTOTrainer

    loss_B, _ = method("kto", beta=0.3, desirable_weight=1.5).loss(policy, reference)
    chosen, rejected = policy["chosen"], policy["rejected"]
    inputs = completion(chosen, rejected) | {
        "label": torch.tensor([True] * B + [False] * B),
        "ref_logps": torch.cat([reference["chosen"].sum(), reference["rejected"].sum()]),
        "ref_KL_logps": reference["mismatched"].sum(),
    }
    trainer = stub(loss_type="kto", beta=0.3, desirable_weight=1.5, undesirable_weight=1.0, calculate_KL=True)
    trainer._compute_kl_logps = lambda model, batch: policy["mismatched"].sum()
    model = outputs(torch.cat([chosen.per_token_BT, rejected.per_token_BT]))
    expected = KTOTrainer._compute_loss(trainer, model, inputs, False)
    assert torch.allclose(loss_B.mean(), expected, atol=1e-5)


def test_simpo_equals_trl(policy: dict[str, LogProbs]) -> None:
    from trl.experimental.cpo import CPOTrainer

    loss_B, _ = method("simpo", beta=2.5, gamma=0.7).loss(policy, {})
    trainer = stub(alpha=0.0, loss_type="simpo", beta=2.5, simpo_gamma=0.7, label_smoothing=0.0)
    expected, _, _ = CPOTrainer.cpo_loss(trainer, policy["chosen"].mean(), policy["rejected"].mean())
    assert torch.allclose(loss_B, expected, atol=1e-5)


def test_cpo_equals_trl(policy: dict[str, LogProbs]) -> None:
    """Pair by pair: TRL's cross-entropy is a mean over the tokens of a batch."""
    from trl.experimental.cpo import CPOTrainer

    loss_B, _ = method("cpo", beta=0.3, chosen_weight=0.7).loss(policy, {})
    chosen_BT, mask_BT = policy["chosen"].per_token_BT, policy["chosen"].mask_BT
    for row in range(B):
        log_probs = (policy[part].per_token_BT[row].sum()[None] for part in ("chosen", "rejected"))
        cross_entropy = -chosen_BT[row][mask_BT[row].bool()].mean()
        trainer = stub(alpha=0.0, loss_type="sigmoid", beta=0.3, label_smoothing=0.0, cpo_alpha=0.7)
        trainer.concatenated_forward.return_value = (
            *log_probs,
            torch.zeros(1),
            torch.zeros(1),
            cross_entropy,
        )
        trainer.cpo_loss = lambda *pair, trainer=trainer: CPOTrainer.cpo_loss(trainer, *pair)
        expected, _ = CPOTrainer.get_batch_loss_metrics(trainer, None, {})
        assert loss_B[row].item() == pytest.approx(expected.item(), abs=1e-5)


def test_slic_is_trl_hinge_scaled_by_its_margin_plus_regularisation(policy: dict[str, LogProbs]) -> None:
    from trl.experimental.cpo import CPOTrainer

    delta = 0.8
    loss_B, _ = method("slic", delta=delta, regularization=0.3).loss(policy, {})
    trainer = stub(alpha=0.0, loss_type="hinge", beta=1 / delta, label_smoothing=0.0)
    hinge, _, _ = CPOTrainer.cpo_loss(trainer, policy["chosen"].mean(), policy["rejected"].mean())
    assert torch.allclose(loss_B, delta * hinge - 0.3 * policy["chosen"].mean(), atol=1e-5)


def test_orpo_equals_trl(policy: dict[str, LogProbs]) -> None:
    from trl.experimental.orpo import ORPOTrainer

    loss_B, _ = method("orpo", beta=0.4).loss(policy, {})
    trainer = stub(beta=0.4)
    ratio, *_ = ORPOTrainer.odds_ratio_loss(trainer, policy["chosen"].mean(), policy["rejected"].mean())
    assert torch.allclose(loss_B, -policy["chosen"].mean() - ratio, atol=1e-5)


def test_rrhf_is_its_formula(policy: dict[str, LogProbs]) -> None:
    loss_B, _ = method("rrhf", rank_weight=2.0).loss(policy, {})
    for row in range(B):
        p = {}
        for part in ("chosen", "rejected"):
            tokens, mask = policy[part].per_token_BT[row].double(), policy[part].mask_BT[row].double()
            p[part] = float((tokens * mask).sum() / mask.sum())
        expected = 2.0 * max(0.0, p["rejected"] - p["chosen"]) - p["chosen"]
        assert loss_B[row].item() == pytest.approx(expected, abs=1e-6)


def test_chain_of_hindsight_shows_both_answers_under_their_names() -> None:
    coh = method("chain_of_hindsight", good_hint="good:", bad_hint="bad:")
    pair = Preference(id="1", prompt="p", chosen="yes", rejected="no", checks={})
    turns = coh.turns(pair)
    assert [t.text for t in turns["chosen"]] == ["p\nbad:", "no", "good:", "yes"]
    assert [t.text for t in turns["rejected"]] == ["p\ngood:", "yes", "bad:", "no"]
    assert coh.prompt("p") == "p\ngood:"
