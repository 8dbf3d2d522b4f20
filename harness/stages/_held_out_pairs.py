"""Held-out preferences: what learning from pairs changed on pairs that it never met."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.axes.alignment import Alignment
from harness.axes.corpus import Split
from harness.axes.instruction import Turn, as_turns
from harness.axes.reward import Preference
from harness.data.template import Template
from harness.errors import DataError
from harness.stages._conversations import spread
from harness.stages._log_probs import answers_log_probs
from harness.stages._preferences import PreferenceSource, preferences
from harness.stages._training import in_precision

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from harness.stage import Work

MOST = 32
"""Pairs on which the policy is measured before and after."""
BATCH = 8


class _Asked(Alignment):
    """Prompt and answer as they are, whatever a method makes of pairs, with what it puts to every prompt."""

    name = "held_out"

    def __init__(self, method: Alignment | None = None) -> None:
        super().__init__(self.Config())
        if method is not None:
            self.prompt = method.prompt  # type: ignore[method-assign]

    def turns(self, preference: Preference) -> dict[str, tuple[Turn, ...]]:
        *before, asked = as_turns(preference.prompt)
        prompt = (*before, replace(asked, text=self.prompt(asked.text)))
        return super().turns(replace(preference, prompt=prompt))


class HeldOutPairs:
    """Validation pairs under the policy as it starts and as it ends, each asked as in use: the end with what
    the method puts to every prompt (a hint that asks for good answers), the start without.

    State: log-probabilities of the start
    """

    def __init__(
        self, work: Work, tokenizer: PreTrainedTokenizerBase, model: nn.Module, method: Alignment
    ) -> None:
        paired = [pair for pair in preferences(work, Split.validation)[0] if pair.paired]
        self.work = work
        self.source: PreferenceSource | None = None

        def source(asked: Alignment) -> PreferenceSource:
            return PreferenceSource(
                kept,
                asked,
                Template(tokenizer),  # type: ignore[arg-type]
                seed=0,
                length=work.config.sequence_length,
                pad_id=tokenizer.pad_token_id or 0,
            )

        kept = spread(paired, MOST)
        try:
            # What fits with the method's words fits without them.
            kept = [pair for pair, _ in source(_Asked(method)).pairs]
            plain, self.source = source(_Asked()), source(_Asked(method))
        except DataError:  # no pair fits: there is nothing to measure, and the facts say so
            return
        self.start = self._measured(model, plain)

    def facts(self, model: nn.Module) -> dict[str, Any]:
        """How often the chosen answer is the likelier one per token, before and after; and how often, and by
        how much, training raised it above the rejected one.

        Units: the margin in nats of whole answers (the implicit reward of DPO, eq. 5, without its beta)
        """
        if self.source is None:
            return {"held_out_pairs": 0}
        (_, before_2P), (sums_2P, after_2P) = self.start, self._measured(model, self.source)
        moved_2P = sums_2P - self.start[0]
        margin_P = moved_2P[0] - moved_2P[1]
        return {
            "held_out_pairs": len(margin_P),
            "held_out_likelier_start": _won(before_2P[0] - before_2P[1]),
            "held_out_likelier_end": _won(after_2P[0] - after_2P[1]),
            "held_out_reward_accuracy": _won(margin_P),
            "held_out_reward_margin": float(margin_P.mean()),
        }

    @torch.no_grad()
    def _measured(self, model: nn.Module, source: PreferenceSource) -> tuple[Tensor, Tensor]:
        """Log-probability of each answer, whole and per token; chosen above rejected (2 x P)."""
        training = model.training
        model.eval()
        source.load_state_dict({"epoch": 0, "position": 0})
        left, sums, means = len(source.pairs), [], []
        while left:
            batch = source.next(min(left, BATCH))
            left -= min(left, BATCH)
            on_device = {name: value.to(self.work.device) for name, value in batch.items()}
            with in_precision(self.work):
                found = answers_log_probs(model, on_device, ("chosen", "rejected"))
            sums.append(torch.stack([found["chosen"].sum(), found["rejected"].sum()]))
            means.append(torch.stack([found["chosen"].mean(), found["rejected"].mean()]))
        model.train(training)
        return torch.cat(sums, dim=1).cpu(), torch.cat(means, dim=1).cpu()


def _won(gap_P: Tensor) -> float:
    """Share of gaps above zero; one of zero counts half."""
    return float(((gap_P > 0).float() + 0.5 * (gap_P == 0).float()).mean())
