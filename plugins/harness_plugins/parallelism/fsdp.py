"""FSDP: weights, gradients and optimizer state split over processes (ZeRO-3)."""

from harness import Method, hookimpl
from harness_plugins.parallelism._sharded import Sharded


class Fsdp(Sharded):
    """Fully sharded data parallelism, layer by layer; about half as much communication again.

    Paper: Rajbhandari et al. 2019, arXiv:1910.02054, section 5.3; Zhao et al. 2023, arXiv:2304.11277
    """

    name = "fsdp"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Fsdp]
