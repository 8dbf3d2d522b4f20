"""The stages, in the order of a full chain; `harness.stages.<name>` holds each one."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from harness.errors import UnknownNameError

if TYPE_CHECKING:
    from harness.stages.stage import Stage

CHAIN = (
    "corpus",
    "tokenizer",
    "tokens",
    "pretrain",
    "extend",
    "instruct",
    "reward",
    "align",
    "quantize",
    "generate",
    "evaluate",
)
"""The default order of `stages:`; an axis set to `none` removes its stage."""


def stage_class(name: str) -> type[Stage]:
    """The class of a stage; a suffix (`instruct@chat`) names a second use of one stage.

    Raises: UnknownNameError
    """
    from harness.stages.stage import Stage

    base = name.partition("@")[0]
    if base not in CHAIN:
        raise UnknownNameError(what="stage", name=base, known=CHAIN)
    module = import_module(f"harness.stages.{base}")
    found: list[type[Stage]] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Stage) and value.__dict__.get("name") == base
    ]
    assert len(found) == 1, f"harness.stages.{base} must define exactly one stage, found {found}"
    return found[0]
