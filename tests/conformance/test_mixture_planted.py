"""The suite of mixtures catches what it should."""

from collections.abc import Mapping

import pytest
from told import told

from harness import Mixture
from harness.conformance import test_mixture as suite


class Base(Mixture):
    """Proportional, and right."""

    name = "planted"

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        return {name: n / sum(num_tokens.values()) for name, n in num_tokens.items()}


class Unnormalised(Base):
    name = "unnormalised"

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        return {name: n / 1000 for name, n in num_tokens.items()}


class Negative(Base):
    name = "negative"

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        first, *others = sorted(num_tokens)
        return {first: -1.0, **dict.fromkeys(others, 2.0 / max(1, len(others)))}


class Forgetful(Base):
    name = "forgetful"

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        return {max(num_tokens, key=lambda name: num_tokens[name]): 1.0}


class Positional(Base):
    name = "positional"

    def weights(self, num_tokens: Mapping[str, int]) -> dict[str, float]:
        total = sum(range(1, len(num_tokens) + 1))
        return {name: (1 + place) / total for place, name in enumerate(num_tokens)}


TESTS = [value for name, value in vars(suite).items() if name.startswith("test_")]


def test_a_right_mixture_passes() -> None:
    for test in TESTS:
        test(Base)


@pytest.mark.parametrize(
    ("method", "test"),
    [
        (Unnormalised, suite.test_shares_sum_to_one),
        (Negative, suite.test_no_share_is_negative),
        (Forgetful, suite.test_every_domain_has_a_share_and_no_other),
        (Unnormalised, suite.test_one_domain_gets_everything),
        (Positional, suite.test_the_order_of_domains_does_not_matter),
    ],
)
def test_a_planted_bug_is_caught(method: type[Mixture], test: object) -> None:
    with told():
        test(method)  # type: ignore[operator]
