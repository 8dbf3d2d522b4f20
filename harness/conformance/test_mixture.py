"""What every mixture must do."""

import math

import numpy as np

from harness.axes.mixture import Mixture

AXIS = "mixture"
SIZES = {"books": 4_000, "code": 90_000, "docs": 6_000}


def weights(method: type[Mixture], sizes: dict[str, int]) -> dict[str, float]:
    """The method's shares under its trial options for these domains."""
    instance = method(method.trial(sorted(sizes)))
    instance.tokens = {
        name: np.random.default_rng(place).integers(0, 4 + 4 * place, size=400)
        for place, name in enumerate(sorted(sizes))
    }
    return instance.weights(sizes)


def test_shares_sum_to_one(method: type[Mixture]) -> None:
    assert math.isclose(sum(weights(method, SIZES).values()), 1.0, abs_tol=1e-9), "the shares do not sum to 1"


def test_no_share_is_negative(method: type[Mixture]) -> None:
    assert min(weights(method, SIZES).values()) >= 0, "a share is negative"


def test_every_domain_has_a_share_and_no_other(method: type[Mixture]) -> None:
    assert set(weights(method, SIZES)) == set(SIZES), (
        "each domain of the data has a share, and no other name has one"
    )


def test_one_domain_gets_everything(method: type[Mixture]) -> None:
    assert math.isclose(weights(method, {"books": 10})["books"], 1.0), "a single domain must get the share 1"


def test_the_order_of_domains_does_not_matter(method: type[Mixture]) -> None:
    turned = dict(reversed(SIZES.items()))
    there, back = weights(method, SIZES), weights(method, turned)
    assert all(math.isclose(there[name], back[name]) for name in SIZES), (
        "a share depends on the order in which domains are listed"
    )
