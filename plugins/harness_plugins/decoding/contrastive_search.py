"""Contrastive search: likely tokens whose representation is unlike what was already said."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import ConfigError, Decoding, Method, hookimpl, special_ids
from harness_plugins.decoding._stepping import Stepper, step_through


class ContrastiveSearch(Decoding):
    """Among the `top_k` likeliest tokens takes the highest (1 - alpha) * p - alpha * similarity.

    Paper: Su et al. 2022, arXiv:2202.06417, eq. 5
    State: hidden states of the last layer of all tokens so far
    """

    name = "contrastive_search"

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        top_k: int = 4
        """Candidates of a step (the paper's k)."""
        alpha: float = 0.6
        """Weight of the similarity to earlier tokens; 0 is greedy (0 to 1)."""

        def __post_init__(self) -> None:
            if self.top_k < 2:
                raise ConfigError(f"decoding.top_k={self.top_k} must be at least 2; 1 is decoding=greedy")
            if not 0 <= self.alpha <= 1:
                raise ConfigError(f"decoding.alpha={self.alpha} must lie between 0 and 1; the paper's is 0.6")

    config: Config

    @classmethod
    def at_once(cls, config: Any) -> tuple[str, int]:
        return "top_k", int(config.top_k)

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
        said_BTD = stepper.layers[-1]
        K, rows_B = self.config.top_k, torch.arange(len(input_BT), device=input_BT.device)

        def choose() -> Tensor:
            nonlocal said_BTD
            probs_BK, ids_BK = stepper.logits_BV.softmax(-1).topk(K)
            real_BT = stepper.mask_BT
            stepper.select(rows_B.repeat_interleave(K))
            stepper.feed(ids_BK.flatten())
            next_BKD = stepper.layers[-1][:, -1].unflatten(0, (-1, K))
            similarity_BKT = F.normalize(next_BKD, dim=-1) @ F.normalize(said_BTD, dim=-1).mT
            similarity_BKT = similarity_BKT.masked_fill(real_BT[:, None] == 0, -1.0)
            alpha = self.config.alpha
            best_B = ((1 - alpha) * probs_BK - alpha * similarity_BKT.amax(-1)).argmax(-1)
            stepper.select(rows_B * K + best_B)
            said_BTD = torch.cat([said_BTD, next_BKD[rows_B, best_B][:, None]], dim=1)
            tokens_B: Tensor = ids_BK[rows_B, best_B]
            return tokens_B

        # The candidates' forward pass has already fed the chosen token, so nothing is left to feed.
        return step_through((), choose, max_new_tokens=max_new_tokens, ends=ends, pad=pad)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [ContrastiveSearch]
