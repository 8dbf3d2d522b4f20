"""What every alignment method must do."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.axes.alignment import Alignment, LogProbs, Needs, Rollouts

AXIS = "alignment"
B, T = 8, 6


def draw(seed: int) -> LogProbs:
    """Log-probabilities of answers of different lengths, answers starting at different positions."""
    generator = torch.Generator().manual_seed(seed)
    start = torch.arange(B)[:, None] % 2
    length = 2 + torch.arange(B)[:, None] % 3
    place = torch.arange(T)
    mask_BT = ((place >= start) & (place < start + length)).float()
    per_token_BT = -(0.2 + torch.rand(B, T, generator=generator)) * mask_BT
    return LogProbs(per_token_BT=per_token_BT, mask_BT=mask_BT)


def pairs(method: Alignment, seed: int = 0) -> tuple[dict[str, LogProbs], dict[str, LogProbs]]:
    """Policy, requiring gradients, and a reference equal to it, as at the start."""
    policy, reference = {}, {}
    for place, part in enumerate(method.parts):
        found = draw(seed + place)
        policy[part] = LogProbs(
            per_token_BT=found.per_token_BT.clone().requires_grad_(True), mask_BT=found.mask_BT
        )
        reference[part] = found
    return policy, reference if method.needs_reference else {}


def rollouts(method: Alignment, rewards_B: Tensor | None = None) -> Rollouts:
    """Samples as they are when drawn, prepared."""
    found = draw(0)
    rewards = torch.linspace(-1, 1, B)[torch.randperm(B, generator=torch.Generator().manual_seed(1))]
    values = 0.1 * torch.ones(B, T) * found.mask_BT if method.needs_values else None
    options = {
        "old_BT": found.per_token_BT,
        "reference_BT": found.per_token_BT,
        "rewards_B": rewards if rewards_B is None else rewards_B,
        "samples_per_prompt": method.samples_per_prompt(),
        "values_BT": values,
    }
    extras = method.prepare(Rollouts(policy=found, extras={}, **options))  # type: ignore[arg-type]
    policy = LogProbs(per_token_BT=found.per_token_BT.clone().requires_grad_(True), mask_BT=found.mask_BT)
    return Rollouts(policy=policy, extras=extras, **options)  # type: ignore[arg-type]


def test_a_loss_for_each_item_and_facts_beside_it(method: type[Alignment]) -> None:
    chosen = method()
    if chosen.needs is Needs.preferences:
        loss, facts = chosen.loss(*pairs(chosen))
        assert loss.shape == (B,), "one loss for each pair"
    else:
        loss, facts = chosen.rollout_loss(rollouts(chosen))
        assert loss.shape in ((B,), (B, T)), "one loss for each sample or token"
    assert torch.isfinite(loss).all(), "a loss is not finite"
    assert loss.requires_grad, "the loss has no gradient: compute it from the policy's per_token_BT"
    assert all(fact.shape == (B,) and torch.isfinite(fact).all() for fact in facts.values()), (
        "facts hold one finite number for each item (shape B)"
    )


def test_chosen_answers_become_likelier(method: type[Alignment]) -> None:
    chosen = method()
    if chosen.needs is Needs.preferences:
        policy, reference = pairs(chosen)
        chosen.loss(policy, reference)[0].sum().backward()
        gradient = policy["chosen"].per_token_BT.grad
        assert gradient is not None, "the loss does not read the policy's chosen answers"
        assert (gradient.sum(-1) < 0).all(), "a likelier chosen answer must lower the loss"


def test_better_samples_become_likelier(method: type[Alignment]) -> None:
    chosen = method()
    if chosen.needs is Needs.rollouts and type(chosen).relabel is Alignment.relabel:
        found = rollouts(chosen)
        chosen.rollout_loss(found)[0].sum().backward()
        gradient = found.policy.per_token_BT.grad
        assert gradient is not None, "the loss does not read the policy's samples"
        push_B = -gradient.sum(-1) / found.policy.mask_BT.sum(-1)
        best = int(found.rewards_B.argmax())
        assert push_B[best] > 0, "the best sample must be made likelier"
        assert torch.corrcoef(torch.stack([push_B, found.rewards_B]))[0, 1] > 0.3, (
            "better samples are not pushed more: the loss hardly follows rewards_B"
        )


def test_what_lies_outside_the_answer_does_not_matter(method: type[Alignment]) -> None:
    chosen = method()

    generator = torch.Generator().manual_seed(9)

    def noisy(found: LogProbs) -> LogProbs:
        noise = 5 * torch.rand(B, T, generator=generator) * (1 - found.mask_BT)
        return LogProbs(per_token_BT=found.per_token_BT.detach() + noise, mask_BT=found.mask_BT)

    if chosen.needs is Needs.preferences:
        policy, reference = pairs(chosen)
        clean, _ = chosen.loss(policy, reference)
        dirty, _ = chosen.loss({part: noisy(found) for part, found in policy.items()}, reference)
        assert torch.allclose(clean, dirty, atol=1e-5), (
            "the loss reads outside the answer: multiply by mask_BT"
        )
    else:
        found = rollouts(chosen)
        clean, _ = chosen.rollout_loss(found)
        other = Rollouts(**{**vars(found), "policy": noisy(found.policy)})
        dirty, _ = chosen.rollout_loss(other)
        mask = found.policy.mask_BT if clean.ndim == 2 else torch.ones(B)
        assert torch.allclose(clean * mask, dirty * mask, atol=1e-5), (
            "the loss reads outside the answer: multiply by mask_BT"
        )


def test_the_order_of_the_batch_does_not_matter(method: type[Alignment]) -> None:
    chosen = method()
    if chosen.needs is not Needs.preferences:
        return
    order = torch.randperm(B, generator=torch.Generator().manual_seed(5))

    def shuffled(part: dict[str, LogProbs]) -> dict[str, LogProbs]:
        return {
            name: LogProbs(per_token_BT=p.per_token_BT[order], mask_BT=p.mask_BT[order])
            for name, p in part.items()
        }

    policy, reference = pairs(chosen)
    plain, _ = chosen.loss(policy, reference)
    again, _ = chosen.loss(shuffled(policy), shuffled(reference))
    assert torch.allclose(plain[order], again, atol=1e-6), "an item's loss depends on its place in the batch"


def test_a_reference_is_read_only_where_it_is_asked_for(method: type[Alignment]) -> None:
    chosen = method()
    if chosen.needs is Needs.preferences and chosen.needs_reference:
        policy, reference = pairs(chosen)
        moved = {
            part: LogProbs(per_token_BT=p.per_token_BT - 0.3 * (part == "chosen"), mask_BT=p.mask_BT)
            for part, p in reference.items()
        }
        same, other = chosen.loss(policy, reference)[0], chosen.loss(policy, moved)[0]
        assert not torch.allclose(same, other), "it asks for a reference and does not use it"


def test_the_prompt_keeps_the_question(method: type[Alignment]) -> None:
    assert "copy this" in method().prompt("copy this"), "prompt() dropped the question it was given"
