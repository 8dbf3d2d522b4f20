"""DeepNorm: LayerNorm over an up-weighted residual, with smaller initial weights."""

import dataclasses
from collections.abc import Iterable
from typing import Any

from torch import nn

from harness import CellView, Method, ModelSpec, Norm, Problem, hookimpl


class DeepNorm(Norm):
    """LayerNorm(alpha x + Sublayer(x)), with weights of ffn, value and output projections times beta.

    Decoder of M blocks: alpha = (2M)^(1/4), beta = (8M)^(-1/4). With an encoder of N blocks: decoder
    (3M)^(1/4) and (12M)^(-1/4), encoder 0.81 (N^4 M)^(1/16) and 0.87 (N^4 M)^(-1/16).

    Paper: Wang et al. 2022, arXiv:2203.00555, figure 2
    """

    name = "deepnorm"
    unread = frozenset({"norm_offset"})
    changes = frozenset({"residual"})

    def build(self, dim: int, spec: ModelSpec) -> nn.Module:
        return nn.LayerNorm(dim, eps=spec.norm_eps, bias=self.has_bias(spec))

    @classmethod
    def modify_spec(cls, config: Any, spec: ModelSpec) -> ModelSpec:
        depth, encoder = spec.num_layers, spec.num_encoder_layers
        if not encoder:
            return dataclasses.replace(
                spec, residual_scale=(2 * depth) ** 0.25, init_gain=(8 * depth) ** -0.25
            )
        mixed = encoder**4 * depth
        return dataclasses.replace(
            spec,
            residual_scale=(3 * depth) ** 0.25,
            init_gain=(12 * depth) ** -0.25,
            encoder_residual_scale=0.81 * mixed ** (1 / 16),
            encoder_init_gain=0.87 * mixed ** (-1 / 16),
        )

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        place = cell.choice("norm_position")
        if place is not None and place.method.name != "post":
            yield Problem(
                where="norm",
                message=f"norm=deepnorm is defined after the residual, not with norm_position="
                f"{place.method.name}; use norm_position=post",
            )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DeepNorm]
