"""Contrastive decoding: what an expert model finds likelier than an amateur does."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    ConfigError,
    Decoding,
    Method,
    Problem,
    check_vocabulary,
    hookimpl,
    model_ref,
    special_ids,
)
from harness_plugins.decoding._stepping import Stepper, step_through


class ContrastiveDecoding(Decoding):
    """Maximises log p_expert - log p_amateur among tokens the expert finds plausible.

    Paper: Li et al. 2023, arXiv:2210.15097, eqs. 2 and 3
    Differs: takes the best token of each step; the paper runs a beam of 5 over the same score
    """

    name = "contrastive_decoding"

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        amateur: str = model_ref()
        """A smaller or less trained model with the same tokenizer."""
        alpha: float = 0.1
        """Share of the expert's highest probability that a token must reach (0 to 1)."""
        temperature: float = 1.0
        """Divides the amateur's logits."""

        def __post_init__(self) -> None:
            if not 0 < self.alpha <= 1:
                raise ConfigError(f"decoding.alpha={self.alpha} must be above 0 and at most 1; try 0.1")
            if self.temperature <= 0:
                raise ConfigError(f"decoding.temperature={self.temperature} must be above 0; try 1.0")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        if not config.amateur:
            yield Problem(where="decoding.amateur", message=NO_AMATEUR)

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
        if "amateur" not in self.models:
            raise ConfigError(f"decoding.amateur: {NO_AMATEUR}")
        check_vocabulary(model, self.models["amateur"], where="decoding.amateur")
        ends, pad = special_ids(model)
        expert = Stepper(model, input_BT, mask_BT)
        amateur = Stepper(self.models["amateur"], input_BT, mask_BT)

        def choose() -> Tensor:
            return self.scores(expert.logits_BV, amateur.logits_BV).argmax(-1)

        return step_through((expert, amateur), choose, max_new_tokens=max_new_tokens, ends=ends, pad=pad)

    def scores(self, expert_BV: Tensor, amateur_BV: Tensor) -> Tensor:
        """Contrastive score of every token, -inf outside the plausible set (eqs. 2 and 3)."""
        expert_BV = expert_BV.log_softmax(-1)
        amateur_BV = (amateur_BV / self.config.temperature).log_softmax(-1)
        plausible_BV = expert_BV >= expert_BV.amax(-1, keepdim=True) + math.log(self.config.alpha)
        return (expert_BV - amateur_BV).masked_fill(~plausible_BV, -torch.inf)


NO_AMATEUR = (
    "contrastive decoding needs a second model; name one with the same tokenizer, e.g. "
    "decoding.amateur='cell:pretrain.budget.amount=1000000'"
)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ContrastiveDecoding]
