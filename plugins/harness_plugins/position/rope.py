"""Rotary position embedding: queries and keys are rotated by their positions."""

from harness import Method, hookimpl
from harness_plugins.position._rotary import RotaryPosition


class Rope(RotaryPosition):
    """Rotary embedding; scores depend on relative positions only.

    Paper: Su et al. 2021, arXiv:2104.09864, section 3.2
    Differs: pairs component i with i + R/2, as Llama's checkpoints do; equal up to a permutation
    State: cos and sin of the last positions asked for, so that layers of one forward share them
    Raises: ConfigError for an odd rotated width
    """

    name = "rope"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Rope]
