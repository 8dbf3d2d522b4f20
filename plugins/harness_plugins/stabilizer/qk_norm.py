"""QK norm: queries and keys are normalised before their product."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from torch import nn

from harness import Method, ModelSpec, Problem, Stabilizer, hookimpl


class QkNorm(Stabilizer):
    """Normalises queries and keys per head, so that attention logits cannot grow without bound.

    Paper: Henry et al. 2020, arXiv:2010.04245, section 3; Dehghani et al. 2023, arXiv:2302.05442, section 2.2
    """

    name = "qk_norm"
    changes = frozenset({"queries_keys"})

    @classmethod
    def modify_spec(cls, config: Method.Config, spec: ModelSpec) -> ModelSpec:
        return replace(spec, qk_norm=True)

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        if cell.spec() is None:
            yield Problem(
                where="stabilizer.qk_norm",
                message="model=pretrained brings its own attention; qk_norm needs a model built here",
            )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [QkNorm]
