"""GeGLU feed-forward: a GELU gate times a linear layer."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from harness import FeedForward, Method, hookimpl


class Geglu(FeedForward):
    """down(GELU(gate(x)) * up(x)).

    Paper: Shazeer 2020, arXiv:2002.05202, eq. 6
    """

    name = "geglu"
    gated = True

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForward.Config):
        tanh: bool = False
        """Whether erf is approximated through tanh, as in T5 1.1."""

    config: Config

    def activation(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh" if self.config.tanh else "none")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Geglu]
