"""DoLa: contrasts the last layer with an earlier one, whose knowledge is less mature."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Decoding, Method, hookimpl, special_ids
from harness_plugins.decoding._stepping import Stepper, step_through


class DoLa(Decoding):
    """Maximises log p_final - log p_early, early being the layer that differs most, among plausible tokens.

    Paper: Chuang et al. 2023, arXiv:2309.03883, sections 2.2 and 2.3
    Differs: picks the early layer for every sequence; transformers picks one for a whole batch. The paper
    says Jensen-Shannon divergence; its authors' code and transformers 4 compute KL(middle || layer) for both
    layers, which `divergence=authors_code` repeats
    """

    name = "dola"

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        layers: str = "high"
        """Which half of the layers is contrasted, every second one: `low` or `high`."""
        divergence: str = "jensen_shannon"
        """How far a layer is from the last: `jensen_shannon`, as the paper says, or `authors_code`."""
        alpha: float = 0.1
        """Share of the final layer's highest probability that a token must reach (0 to 1)."""
        repetition_penalty: float = 1.2
        """Divides the score of tokens seen before (multiplies negative ones); 1.2 is the paper's."""

        def __post_init__(self) -> None:
            if self.layers not in ("low", "high"):
                raise ConfigError(f"decoding.layers={self.layers} must be low or high")
            if self.divergence not in ("jensen_shannon", "authors_code"):
                raise ConfigError(
                    f"decoding.divergence={self.divergence} must be jensen_shannon or authors_code"
                )
            if not 0 < self.alpha <= 1:
                raise ConfigError(f"decoding.alpha={self.alpha} must be above 0 and at most 1; try 0.1")
            if self.repetition_penalty <= 0:
                raise ConfigError(
                    f"decoding.repetition_penalty={self.repetition_penalty} must be above 0; 1 is none"
                )

    config: Config

    @torch.inference_mode()
    def generate(
        self,
        model: nn.Module,
        input_BT: Tensor,
        mask_BT: Tensor,
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> Tensor:
        ends, pad = special_ids(model)
        stepper = Stepper(model, input_BT, mask_BT, hidden=True)
        head: Any = model.get_output_embeddings()  # type: ignore[operator]
        candidates = self.candidates(model, len(stepper.layers) - 1)
        # Padding was never seen; the last token of a left-padded prompt always was.
        prompt_BT = stepper.prompt_BT
        seen_BT = torch.where(stepper.mask_BT.bool(), prompt_BT, prompt_BT[:, -1:])

        def choose() -> Tensor:
            nonlocal seen_BT
            early_LBV = torch.stack([head(stepper.layers[index][:, -1]).float() for index in candidates])
            scores_BV = self.penalize(self.contrast(stepper.logits_BV, early_LBV), seen_BT)
            tokens_B = scores_BV.argmax(-1)
            seen_BT = torch.cat([seen_BT, tokens_B[:, None]], dim=1)
            return tokens_B

        return step_through((stepper,), choose, max_new_tokens=max_new_tokens, ends=ends, pad=pad)

    def candidates(self, model: nn.Module, num_layers: int) -> list[int]:
        """Indices into the hidden states; with tied embeddings the lowest ones only echo the input."""
        if self.config.layers == "high":
            return list(range(max(num_layers // 2, num_layers - 20), num_layers, 2))
        tied = getattr(model.config, "tie_word_embeddings", False)
        start = min(2, num_layers - 1) if tied else 0
        return list(range(start, min(num_layers // 2, 20), 2)) or [start]

    def contrast(self, final_BV: Tensor, early_LBV: Tensor) -> Tensor:
        """log p_final - log p_early of the most divergent layer, -inf outside the plausible set."""
        final_BV, early_LBV = final_BV.log_softmax(-1), early_LBV.log_softmax(-1)
        divergence_LB = self.divergence(final_BV, early_LBV)
        rows_B = torch.arange(len(final_BV), device=final_BV.device)
        early_BV = early_LBV[divergence_LB.argmax(0), rows_B]
        plausible_BV = final_BV >= final_BV.amax(-1, keepdim=True) + math.log(self.config.alpha)
        return (final_BV - early_BV).masked_fill(~plausible_BV, -torch.inf)

    def divergence(self, final_BV: Tensor, early_LBV: Tensor) -> Tensor:
        """How far each early layer's distribution is from the last one's, from log-probabilities.

        Units: nats
        Shapes: -> LB
        """
        final_LBV = final_BV.expand_as(early_LBV)
        middle_LBV = torch.stack((final_LBV, early_LBV)).logsumexp(0) - math.log(2)
        sums_LB = torch.zeros_like(final_LBV[..., 0])
        for layer_LBV in (final_LBV, early_LBV):
            p_LBV, q_LBV = layer_LBV, middle_LBV
            if self.config.divergence == "authors_code":
                p_LBV, q_LBV = q_LBV, p_LBV
            sums_LB += 0.5 * (p_LBV.exp() * (p_LBV - q_LBV)).sum(-1)
        return sums_LB

    def penalize(self, scores_BV: Tensor, seen_BT: Tensor) -> Tensor:
        """Scores with those of seen tokens lowered."""
        penalty, seen_scores_BT = self.config.repetition_penalty, scores_BV.gather(1, seen_BT)
        lowered_BT = torch.where(seen_scores_BT < 0, seen_scores_BT * penalty, seen_scores_BT / penalty)
        return scores_BV.scatter(1, seen_BT, lowered_BT)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DoLa]
