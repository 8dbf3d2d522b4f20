"""GELU feed-forward: GPT's and BERT's."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from harness import FeedForward, Method, hookimpl


class Gelu(FeedForward):
    """down(GELU(up(x))), GELU(x) = 0.5 x (1 + erf(x / sqrt(2))).

    Paper: Hendrycks and Gimpel 2016, arXiv:1606.08415
    """

    name = "gelu"

    @dataclass(frozen=True, kw_only=True)
    class Config(FeedForward.Config):
        tanh: bool = False
        """Whether erf is approximated through tanh, as in GPT-2 and BLOOM."""

    config: Config

    def activation(self, x: Tensor) -> Tensor:
        return F.gelu(x, approximate="tanh" if self.config.tanh else "none")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Gelu]
