"""Swish feed-forward: a smooth ReLU without a gate."""

import torch.nn.functional as F
from torch import Tensor

from harness import FeedForward, Method, hookimpl


class Swish(FeedForward):
    """down(Swish(up(x))), Swish(x) = x sigmoid(x).

    Paper: Ramachandran et al. 2017, arXiv:1710.05941
    """

    name = "swish"

    def activation(self, x: Tensor) -> Tensor:
        return F.silu(x)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Swish]
