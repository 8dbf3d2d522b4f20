"""A suite that fails on a planted bug must say what is wrong, and not only which comparison was false."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

UNTOLD = re.compile(r"assert |Tensor-likes|Scalars|$")
"""How a failure begins that has no words of the suite's own: pytest's, or torch's."""


@contextmanager
def told(match: str = "") -> Iterator[None]:
    """The block fails with an AssertionError that begins with a sentence, and one that has `match` in it."""
    with pytest.raises(AssertionError, match=match or None) as failure:
        yield
    assert not UNTOLD.match(str(failure.value)), f"not told: {failure.value}"
