"""Pruner: setting weights of linear layers to zero."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from harness.errors import ConfigError
from harness.method import CellView, Method, Problem
from harness.ops.calibration import Calibration, change_weights
from harness.ops.experts import unknown_layout
from harness.ops.moments import Hessian, SquaredNorms, output_error
from harness.ops.packed_linear import packed_shapes

HALF = 0.5
"""Share removed where neither option says one: that of both papers' tables."""


class Pruner(Method):
    """Sets a share of every linear layer's weights to zero, in place; embeddings, norms and head stay.

    Layers are met in the order of the computation, and what a method reads of a layer's inputs is what the
    pruned blocks before it give. A method says which weights of one layer go, and what becomes of the rest.
    State: `facts` holds what `prune` measured; it enters the record
    """

    axis = "pruner"
    default = "none"
    optional = True
    gathers: ClassVar[type[Hessian] | type[SquaredNorms] | None] = None
    """What it reads of a layer's inputs, summed over the calibration data; None where it reads none."""
    changes = frozenset({"weights", "sparsity", "calibration_sha256", "calibration_tokens"})
    after = frozenset({"weights", "calibration_sha256", "calibration_tokens"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        sparsity: float | None = None
        """Share of each layer's weights to remove (0 to 1); null: a half, or what `pattern` removes."""
        pattern: str = ""
        """`n:m` keeps n of every m successive inputs of an output (2:4, 4:8), which some hardware multiplies
        faster; empty: unstructured, wherever the scores are lowest."""

        def __post_init__(self) -> None:
            match = re.fullmatch(r"(\d+):(\d+)", self.pattern)
            if self.pattern and (match is None or not 0 < int(match[1]) < int(match[2])):
                raise ConfigError(
                    f"pruner.pattern={self.pattern} must be n:m with 0 < n < m, e.g. 2:4, or empty"
                )
            if self.sparsity is None:
                return
            if not 0 < self.sparsity < 1:
                raise ConfigError(f"pruner.sparsity={self.sparsity} must lie between 0 and 1")
            if self.kept is not None and abs(self.sparsity - self.share) > 1e-9:
                raise ConfigError(
                    f"pruner.sparsity={self.sparsity} contradicts pruner.pattern={self.pattern}, which "
                    f"removes {self.share:g}; leave one of them out"
                )

        @property
        def kept(self) -> tuple[int, int] | None:
            """(n, m) of a pattern that keeps n of every m inputs; None where it is unstructured."""
            n, _, m = self.pattern.partition(":")
            return (int(n), int(m)) if m else None

        @property
        def share(self) -> float:
            """Share of weights to remove."""
            if self.kept is not None:
                return 1 - self.kept[0] / self.kept[1]
            return HALF if self.sparsity is None else self.sparsity

    config: Config

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.facts: dict[str, Any] = {}

    @property
    def needs_calibration(self) -> bool:
        """Whether it reads calibration data."""
        return self.gathers is not None

    def calibration_tokens(self, in_features: int) -> int:
        """Calibration tokens without which a layer with so many inputs cannot be pruned."""
        return 0

    @abstractmethod
    def prune_layer(self, weight_OI: Tensor, inputs: Any) -> Tensor:
        """The pruned weight of one layer.

        Shapes: out x in, float32; `inputs` is what `gathers` has summed, None where that is None
        """
        raise NotImplementedError

    def prune(self, model: nn.Module, calibration: Calibration | None) -> nn.Module:
        """The pruned model, in place.

        Raises: EffectError where it has no linear layer, ConfigError where the pattern does not fit one or a
        layer saw no calibration token
        """
        errors: dict[str, float] = {}

        def change(name: str, weight_OI: Tensor, inputs: Any) -> Tensor:
            pruned_OI = self.prune_layer(weight_OI.clone(), inputs)
            if isinstance(inputs, Hessian):
                errors[name] = output_error(inputs.sum, weight_OI, pruned_OI)
            return pruned_OI

        for name, (_, _, in_features) in packed_shapes(model).items():
            message = self.layer_problems(in_features)
            if message is not None:
                raise ConfigError(f"layer {name}: {message}")
        what = f"pruner={self.name}"
        change_weights(model, change, what=what, gathers=self.gathers, calibration=calibration)
        if errors:
            self.facts = {"layer_errors": errors, "mean_error": sum(errors.values()) / len(errors)}
        return model

    def lowest(self, scores: Tensor) -> Tensor:
        """Where the lowest scores lie of those that are compared: the asked share of each row, or all but n
        of every m in it. Of equal scores the first go.

        Shapes: rows x columns -> bool
        """
        rows, columns = scores.shape
        kept = self.config.kept
        n, m = (columns - round(columns * self.config.share), columns) if kept is None else kept
        compared = scores.reshape(rows, -1, m)
        chosen = compared.argsort(dim=-1, stable=True)[..., : m - n]
        return torch.zeros_like(compared, dtype=torch.bool).scatter_(-1, chosen, True).reshape(scores.shape)

    def layer_problems(self, in_features: int) -> str | None:
        """Why a layer with so many inputs cannot be pruned, and what would work; None where it can."""
        kept = self.config.kept
        if kept is not None and in_features % kept[1]:
            return (
                f"pruner.pattern={self.config.pattern} does not divide its {in_features} inputs; use an m "
                "that does, or no pattern"
            )
        return None

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Experts in a layout that nobody knows, and layers that the pattern does not fit."""
        if meta_model is None:
            return
        layout = unknown_layout(meta_model)
        if layout is not None:
            yield Problem(where=f"pruner={cls.name}", message=layout)
        method = cls(config)
        narrow = {inputs: name for name, (_, _, inputs) in packed_shapes(meta_model).items()}
        for inputs, name in narrow.items():
            message = method.layer_problems(inputs)
            if message is not None:
                yield Problem(where=f"pruner={cls.name}", message=f"layer {name}: {message}")
