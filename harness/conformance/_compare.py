"""Comparison of tensors that says in the author's words what a difference means."""

import torch
from torch import Tensor


def close(
    left: Tensor, right: Tensor, why: str, *, rtol: float | None = None, atol: float | None = None
) -> None:
    """Within torch's limits for their dtype, or those given.

    Raises: AssertionError saying `why`, then where and by how much they differ
    """
    torch.testing.assert_close(left, right, rtol=rtol, atol=atol, msg=lambda found: f"{why}\n{found}")
