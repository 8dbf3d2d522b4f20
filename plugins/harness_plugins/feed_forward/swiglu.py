"""SwiGLU feed-forward: a Swish gate times a linear layer."""

import torch.nn.functional as F
from torch import Tensor

from harness import FeedForward, Method, hookimpl


class Swiglu(FeedForward):
    """down(Swish(gate(x)) * up(x)).

    Paper: Shazeer 2020, arXiv:2002.05202, eq. 6
    """

    name = "swiglu"
    gated = True

    def activation(self, x: Tensor) -> Tensor:
        return F.silu(x)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Swiglu]
