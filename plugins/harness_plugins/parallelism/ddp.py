"""DDP: whole weights on every process, gradients averaged."""

from harness import Method, hookimpl
from harness_plugins.parallelism._processes import Replicated


class Ddp(Replicated):
    """Data parallelism of torch's DistributedDataParallel.

    Paper: Li et al. 2020, arXiv:2006.15704
    """

    name = "ddp"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Ddp]
