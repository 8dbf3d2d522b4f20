"""Full attention: every token reads all that it may see, with as many key/value heads as query heads."""

from harness import Attention, Method, hookimpl


class Full(Attention):
    """Multi-head scaled dot-product attention.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, section 3.2
    """

    name = "full"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Full]
