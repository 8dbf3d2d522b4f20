"""Squared ReLU feed-forward: Primer's."""

import torch.nn.functional as F
from torch import Tensor

from harness import FeedForward, Method, hookimpl


class SquaredRelu(FeedForward):
    """down(max(up(x), 0)^2).

    Paper: So et al. 2021, arXiv:2109.08668
    """

    name = "squared_relu"

    def activation(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [SquaredRelu]
