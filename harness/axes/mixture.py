"""Mixture: how often each domain is drawn."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from harness.method import Method


class Mixture(Method):
    """Sampling weights of domains from their sizes.

    State: `tokens` holds each domain's training ids, for methods that learn the weights
    """

    axis = "mixture"
    default = "proportional"
    moves_facts = frozenset({"counts"})

    tokens: Mapping[str, np.ndarray] = MappingProxyType({})

    @classmethod
    def trial(cls, domains: Sequence[str]) -> Method.Config:
        """Options the conformance suite runs it with, on these domains."""
        return cls.Config()

    @abstractmethod
    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        """Share of each domain among drawn tokens, summing to 1, from the tokens each one holds.

        Raises: ConfigError naming the domains that exist, if an option names another
        """
        raise NotImplementedError
