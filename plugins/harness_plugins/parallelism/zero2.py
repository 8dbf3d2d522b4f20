"""ZeRO-2: optimizer state and gradients split, weights kept whole between forward and backward."""

from harness import Method, hookimpl
from harness_plugins.parallelism._sharded import Sharded


class Zero2(Sharded):
    """Gradients and optimizer state split; weights are gathered once a step (FSDP2 without resharding).

    Paper: Rajbhandari et al. 2019, arXiv:1910.02054, section 5.2
    Differs: between steps the weights are split too, which costs nothing
    """

    name = "zero2"
    reshard = False


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Zero2]
