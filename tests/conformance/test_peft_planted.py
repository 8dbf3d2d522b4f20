"""Planted bugs: the peft suite must fail on each."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
from told import told
from torch import nn

from harness.axes.peft import Peft
from harness.conformance import test_peft as suite
from harness.registry.known import registry

LoRA: Any = registry().get("peft", "lora")


class Idle(LoRA):  # type: ignore[misc]
    """Trains nothing."""

    name = "idle"

    def apply(self, model: nn.Module) -> nn.Module:
        return super().apply(model).requires_grad_(False)  # type: ignore[no-any-return]


class Leaky(LoRA):  # type: ignore[misc]
    """Forgets to freeze the base."""

    name = "leaky"

    def apply(self, model: nn.Module) -> nn.Module:
        return super().apply(model).requires_grad_(True)  # type: ignore[no-any-return]


class Stuck(LoRA):  # type: ignore[misc]
    """Cannot be switched off."""

    name = "stuck"

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        return nullcontext()


class Forgetful(LoRA):  # type: ignore[misc]
    """Loads a fresh adapter instead of the saved one."""

    name = "forgetful"

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        return super().apply(model)  # type: ignore[no-any-return]


class Modest(LoRA):  # type: ignore[misc]
    """Says that it lengthens sequences, and does not."""

    name = "modest"

    def virtual_tokens(self) -> int:
        return 3


class Lossy(LoRA):  # type: ignore[misc]
    """Drops the update when it merges."""

    name = "lossy"

    def merge(self, model: nn.Module) -> nn.Module:
        return model.unload()  # type: ignore[operator,no-any-return]


class Miscounting(LoRA):  # type: ignore[misc]
    """States another number of parameters than it trains."""

    name = "miscounting"

    def trainable_parameters(self, model: nn.Module) -> int:
        return super().trainable_parameters(model) + 1  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (Idle, suite.test_it_trains_something),
        (Leaky, suite.test_nothing_else_moves),
        (Stuck, suite.test_switched_off_it_is_the_base),
        (Forgetful, suite.test_a_saved_adapter_comes_back),
        (Modest, suite.test_a_sequence_is_longer_by_the_virtual_tokens),
        (Lossy, suite.test_merged_equals_unmerged),
        (Miscounting, suite.test_the_parameter_count_is_the_formula),
    ],
)
def test_the_suite_catches_it(broken: type[Peft], test: Callable[[Any], None]) -> None:
    with told():
        test(broken)
