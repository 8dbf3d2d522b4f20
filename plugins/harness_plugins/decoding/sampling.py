"""Sampling: draws from the model's whole distribution."""

from harness import Method, hookimpl
from harness_plugins.decoding._sampling import Sampler


class Sampling(Sampler):
    """Draws every token from the whole distribution at a temperature."""

    name = "sampling"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Sampling]
