"""Planted bugs: the context suite must fail on each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from told import told
from torch import Tensor, nn

from harness.axes.context import Context, Heads, Rotary
from harness.conformance import test_context as suite


class Nothing(Context):
    """Returns the model as it is."""

    name = "nothing"

    def apply(self, model: nn.Module) -> nn.Module:
        return model


class Clairvoyant(Context):
    """Forgets who may read whom."""

    name = "clairvoyant"

    def attend(self, heads: Heads) -> Tensor:
        return heads.plain_scores().softmax(-1) @ heads.v_BKSH


class Slots(Context):
    """Counts tensor columns in place of positions."""

    name = "slots"

    def attend(self, heads: Heads) -> Tensor:
        keys = torch.arange(heads.k_BKSH.shape[2])[None]
        queries = keys[:, -heads.q_BNTH.shape[2] :]
        far = heads.scores(queries * 0 + 3, keys * 0)
        near = keys[:, None, None, :] < 4
        return heads.mix(torch.where(near, heads.plain_scores(), far))


class Relative(Context):
    """Counts positions from the first query of the call."""

    name = "relative"

    def attend(self, heads: Heads) -> Tensor:
        start = heads.query_position_BT[:, :1]
        return heads.mix(heads.scores(heads.query_position_BT - start, heads.key_position_BS - start * 0))


class Broken(Context):
    """Frequencies that are not numbers."""

    name = "broken"

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        return replace(rotary, inv_freq=rotary.inv_freq / 0 * 0)


class Compounding(Context):
    """Reads the length it wrote itself."""

    name = "compounding"

    def apply(self, model: nn.Module) -> nn.Module:
        config: Any = model.config
        for module in suite.rotary_modules(model):
            module.inv_freq *= 64 / config.max_position_embeddings  # type: ignore[operator]
        config.max_position_embeddings *= 2
        if getattr(config, "spec", None):
            config.spec["max_length"] *= 2
        return model


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Nothing, suite.test_it_leaves_a_proof_of_its_effect),
        (Nothing, suite.test_the_config_states_the_longer_context),
        (Clairvoyant, suite.test_future_tokens_do_not_leak),
        (Slots, suite.test_padding_on_the_left_changes_nothing),
        (Relative, suite.test_decoding_with_a_cache_equals_reading_at_once),
        (Broken, suite.test_long_sequences_give_finite_logits),
        (Compounding, suite.test_it_is_the_same_after_a_reload),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_suite_finds(broken: type[Context], test: Callable[[Any, str], None], kind: str) -> None:
    with told():
        test(broken, kind)
