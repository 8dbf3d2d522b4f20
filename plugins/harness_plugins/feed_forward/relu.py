"""ReLU feed-forward: the original transformer's."""

import torch.nn.functional as F
from torch import Tensor

from harness import FeedForward, Method, hookimpl


class Relu(FeedForward):
    """down(max(up(x), 0)).

    Paper: Vaswani et al. 2017, arXiv:1706.03762, section 3.3
    """

    name = "relu"

    def activation(self, x: Tensor) -> Tensor:
        return F.relu(x)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Relu]
