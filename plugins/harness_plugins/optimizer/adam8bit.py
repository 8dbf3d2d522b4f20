"""8-bit Adam: AdamW with block-wise quantized moments."""

import torch
from torch import nn

from harness import Method, MissingExtraError, hookimpl, trained_parameters

from ._adam import Moments

LEAST, BLOCK = 4096, 256
"""bitsandbytes packs tensors from so many numbers on, with a scale for each block."""


class Adam8bit(Moments):
    """AdamW whose moments take one byte a number, in blocks with their own scale; bitsandbytes' kernels.

    Paper: Dettmers et al. 2021, arXiv:2110.02861, section 2
    State: two moments in 8 bits for tensors of 4,096 elements or more, in fp32 for smaller ones
    Error: relative error of a moment below about 1.6 %, from dynamic 8-bit codes
    """

    name = "adam8bit"
    extra = "bitsandbytes"
    libraries = ("bitsandbytes",)
    conflicts = frozenset({"sharded_weights", "split_optimizer"})

    def build(self, model: nn.Module, learning_rate: float) -> torch.optim.Optimizer:
        try:
            from bitsandbytes.optim import AdamW8bit
        except ImportError as error:
            raise MissingExtraError(
                package="bitsandbytes", extra="bitsandbytes", needed_by="optimizer=adam8bit"
            ) from error
        built: torch.optim.Optimizer = AdamW8bit(
            self.groups(model), lr=learning_rate, betas=self.betas, eps=self.config.eps
        )
        return built

    def state_bytes(self, model: nn.Module) -> int:
        """A byte a number and a scale for every 256 of them, twice, and the two tables of codes."""
        large = [p.numel() for p in trained_parameters(model) if p.numel() >= LEAST]
        small = sum(p.numel() for p in trained_parameters(model) if p.numel() < LEAST)
        packed = sum(size + 4 * -(-size // BLOCK) for size in large)
        return 2 * packed + (2 * 256 * 4 if large else 0) + 2 * 4 * small


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Adam8bit]
