"""ReLU feed-forward: the original transformer's."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from harness import FeedForward, Method, ModelSpec, hookimpl


class Relu(FeedForward):
    """down(max(up(x), 0)).

    Paper: Vaswani et al. 2017, arXiv:1706.03762, section 3.3
    """

    name = "relu"

    @classmethod
    def kept_values(cls, config: Any, spec: ModelSpec) -> float:
        return 1.0 * spec.ffn_dim  # its output tells where its input was negative

    def activation(self, x: Tensor) -> Tensor:
        return F.relu(x)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Relu]
