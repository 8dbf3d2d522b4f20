"""Hadamard rotation: every weight becomes a sum over all of a row, so that none stands out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from harness import Method, Rotation, hadamard, hookimpl


class Hadamard(Rotation):
    """A randomized Hadamard matrix on the residual stream, and one on the values of each head.

    Paper: Ashkboos et al. 2024, QuaRot, arXiv:2404.00456, section 4 (stages 1a and 1b)
    Differs: embedding and head are left as they are and their rotations applied as the model runs, so that
    tied ones stay tied; the inputs of down projections and keys in the cache, which QuaRot rotates as the
    model runs for the sake of quantized activations, are not
    """

    name = "hadamard"

    @dataclass(frozen=True, kw_only=True)
    class Config(Rotation.Config):
        heads: bool = True
        """Whether the values of each head are rotated, and turned back in the output projection."""
        seed: int = 0
        """Of the signs of the matrix's columns."""

    config: Config

    def rotates_heads(self) -> bool:
        return self.config.heads

    def matrix(self, size: int) -> Tensor:
        return hadamard(size, generator=torch.Generator().manual_seed(self.config.seed))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Hadamard]
