"""Trained weights in bfloat16 between steps, and what is kept beside them for small updates to add up."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum

import torch
from torch import Tensor, nn

from harness import StoredWeights


class Weights(Enum):
    """How bf16 keeps the trained weights."""

    fp32 = "fp32"
    master = "master"
    kahan = "kahan"
    rounded = "rounded"


HELD = {Weights.fp32: 4, Weights.master: 6, Weights.kahan: 4, Weights.rounded: 2}
"""Bytes of a trained weight between steps."""


class Bf16Weights(StoredWeights):
    """Forward and backward see bfloat16 weights; an update sees their full value in fp32.

    State: beside each weight its value in fp32 (`master`), what rounding left (`kahan`), or nothing
    (`rounded`)
    """

    def __init__(self, parameters: Sequence[nn.Parameter], kind: Weights) -> None:
        self.parameters, self.kind = parameters, kind
        self.beside: list[Tensor | None] = []
        self._store()

    @contextmanager
    def whole(self) -> Iterator[None]:
        for place, p in enumerate(self.parameters):
            gradient, p.grad = p.grad, None  # a gradient has its parameter's format
            p.data = self._value(p.data, self.beside[place])
            p.grad = None if gradient is None else gradient.float()
            self.beside[place] = None
        try:
            yield
        finally:
            self._store()

    def release(self) -> None:
        for p, beside in zip(self.parameters, self.beside, strict=True):
            p.grad = None
            p.data = self._value(p.data, beside)

    def tensors(self) -> list[Tensor]:
        return [beside for beside in self.beside if beside is not None]

    def _value(self, weight: Tensor, beside: Tensor | None) -> Tensor:
        if self.kind is Weights.master:
            assert beside is not None
            return beside
        return weight.float() if beside is None else weight.float() + beside.float()

    def _store(self) -> None:
        self.beside = []
        for p in self.parameters:
            value, gradient = p.data, p.grad
            p.grad = None
            p.data = value.to(torch.bfloat16)
            p.grad = None if gradient is None else gradient.to(torch.bfloat16)
            if self.kind is Weights.master:
                self.beside.append(value)
            elif self.kind is Weights.kahan:
                self.beside.append((value - p.data.float()).to(torch.bfloat16))
            else:
                self.beside.append(None)
