"""Attention in views by the fused kernel, against scores that are chosen pair by pair."""

import pytest
import torch
from torch import Tensor

from harness import Heads, Placement
from harness.ops.heads import causal


def heads(*, v_width: int = 8, cap: float | None = None, batch: int = 1) -> Heads:
    """Twelve queries after eight keys, six heads on two of keys; a second row is padded on the left."""
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    key_position_BS = torch.arange(20).expand(batch, -1).clone()
    key_position_BS[1:] = (key_position_BS[1:] - 3).clamp(min=-1)
    query_position_BT = key_position_BS[:, 8:]
    return Heads(
        q_BNTH=drawn(batch, 6, 12, 8),
        k_BKSH=drawn(batch, 2, 20, 8),
        v_BKSH=drawn(batch, 2, 20, v_width),
        query_position_BT=query_position_BT,
        key_position_BS=key_position_BS,
        visible_BNTS=causal(query_position_BT, key_position_BS),
        scale=0.3,
        inv_freq=1 / 100.0 ** (torch.arange(0, 8, 2, dtype=torch.float64) / 8),
        attention_factor=1.0,
        cap=cap,
    )


@pytest.mark.parametrize("v_width", [4, 8, 24])
@pytest.mark.parametrize("cap", [None, 0.5])
@pytest.mark.parametrize("batch", [1, 2])
def test_views_are_the_scores_of_each_pair(v_width: int, cap: float | None, batch: int) -> None:
    given = heads(v_width=v_width, cap=cap, batch=batch)
    near, first = given.distance() < 6, given.key_position_BS[:, None, None, :] < 2
    far = given.scores(torch.full_like(given.query_position_BT, 6), torch.zeros_like(given.key_position_BS))
    by_scores = given.mix(torch.where(near, given.plain_scores(), far), near | first)
    by_views = given.read(given.plain(near), given.at(6, ~near & first))
    torch.testing.assert_close(by_views, by_scores, atol=1e-6, rtol=1e-5)


def test_a_view_in_which_nothing_is_read_changes_nothing() -> None:
    given = heads()
    nothing = torch.zeros_like(given.visible_BNTS)
    alone = given.read(given.plain())
    torch.testing.assert_close(given.read(given.plain(), given.at(3, nothing)), alone)
    torch.testing.assert_close(given.read(given.at(3, nothing), given.plain()), alone)


def test_gradients_of_views_are_those_of_scores() -> None:
    given = heads()
    given.k_BKSH.requires_grad_()
    near = given.distance() < 6
    fractions = Placement(given.query_position_BT / 2 + 3, given.key_position_BS / 2, ~near)
    far = given.scores(fractions.query_position_BT, fractions.key_position_BS)
    by_scores = given.mix(torch.where(near, given.plain_scores(), far)).square().sum()
    by_views = given.read(given.plain(near), fractions).square().sum()
    (one,), (other,) = (torch.autograd.grad(each, given.k_BKSH) for each in (by_scores, by_views))
    torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
