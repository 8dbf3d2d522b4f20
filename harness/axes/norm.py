"""Norm: the normalisation layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import nn

from harness.method import CellView, Method, Problem
from harness.ops.norms import OffsetRMSNorm
from harness.spec import ModelSpec


class Norm(Method):
    """Builds normalisation modules; parameters are called `weight` and, where there is one, `bias`.

    Any other parameter is a single number.

    Shapes: a module maps B...D to B...D over the last dimension
    """

    axis = "norm"
    default = "rmsnorm"
    unread: frozenset[str] = frozenset()
    """Of `norm_bias` and `norm_offset`, fields of the shape, those that its modules have no place for: the
    plan refuses them where no other norm of the model reads them."""

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Stated fields of the shape that no norm reads."""
        spec = cell.spec()
        modules = () if meta_model is None else meta_model.modules()
        offset = any(isinstance(module, OffsetRMSNorm) for module in modules)
        for name, use in (("norm_bias", "layernorm"), ("norm_offset", "rmsnorm")):
            read = name not in cls.unread or (name == "norm_offset" and offset)
            if not read and getattr(spec, name, None):
                yield Problem(
                    where=f"model.{name}",
                    message=f"norm={cls.name} has nothing that it would change; leave model.{name} out, or "
                    f"use norm={use}",
                )

    @abstractmethod
    def build(self, dim: int, spec: ModelSpec) -> nn.Module:
        """A module over the last dimension, of width `dim`."""
        raise NotImplementedError

    @staticmethod
    def has_bias(spec: ModelSpec) -> bool:
        """Whether norms that can carry a bias do."""
        return spec.bias if spec.norm_bias is None else spec.norm_bias
