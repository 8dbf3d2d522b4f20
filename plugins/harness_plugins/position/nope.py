"""No positions: a causal decoder learns order from its mask alone."""

from harness import Method, Position, hookimpl


class Nope(Position):
    """No positional encoding.

    Paper: Kazemnejad et al. 2023, arXiv:2305.19466
    """

    name = "nope"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Nope]
