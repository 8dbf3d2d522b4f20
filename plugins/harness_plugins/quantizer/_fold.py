"""Which module before a layer can take over the factors of its inputs: tried, not told by names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness import calibration_inputs, linear_layers, weight_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKENS = 16
"""Tokens on which a fold is tried."""
SAME = 1e-4
"""Change of the logits, relative to the largest, beyond which the model computes something else."""


@dataclass(frozen=True)
class Fold:
    """Layers that read one input, and the module that makes it.

    `before` is a norm or a linear layer whose outputs divided by s leave the model as it is once the weights
    of the readers were multiplied by s; None where no module is such
    """

    readers: tuple[str, ...]
    before: str | None


@torch.no_grad()
def find_folds(model: nn.Module, ids_BT: Tensor) -> list[Fold]:
    """The linear layers by what they read, in the order of the computation, and what can be folded into.

    Shapes: ids_BT some tokens the model knows; a candidate with which its logits change is none
    """
    ids_BT = ids_BT[:1, :TOKENS]
    groups, makers = _trace(model, ids_BT)
    exact = model(**calibration_inputs(model, ids_BT), use_cache=False).logits
    proven: dict[tuple[str, ...], bool] = {}
    folds = []
    for readers, maker in zip(groups, makers, strict=True):
        found = None
        for candidate in _candidates(model, readers, maker):
            role = tuple(_role(name) for name in (candidate, *readers))
            if role not in proven:  # tried on all blocks at once
                alike = [
                    Fold(r, c)
                    for r, m in zip(groups, makers, strict=True)
                    for c in _candidates(model, r, m)
                    if tuple(_role(name) for name in (c, *r)) == role
                ]
                with _folded(model, alike):
                    changed = (
                        (model(**calibration_inputs(model, ids_BT), use_cache=False).logits - exact)
                        .abs()
                        .max()
                    )
                proven[role] = bool(changed <= SAME * exact.abs().max())
            if proven[role]:
                found = candidate
                break
        folds.append(Fold(readers, found))
    return folds


def fold(model: nn.Module, found: Fold, factors: Tensor) -> None:
    """Multiply the weights of the readers by a factor for each input, and divide what makes the inputs."""
    for name in found.readers:
        weight_matrix(model.get_submodule(name)).mul_(factors)
    assert found.before is not None
    before: Any = model.get_submodule(found.before)
    if before.weight.ndim == 1:
        before.weight.data.div_(factors)
    else:
        weight_matrix(before).div_(factors[:, None])
    if getattr(before, "bias", None) is not None:
        before.bias.data.div_(factors)


@contextmanager
def _folded(model: nn.Module, folds: Sequence[Fold]) -> Iterator[None]:
    """Within the context, factors of 1/2, 1 and 2 are folded: they round nothing and leave no trace."""
    generator = torch.Generator().manual_seed(0)
    done = []
    for each in folds:
        weight = weight_matrix(model.get_submodule(each.readers[0]))
        power = torch.randint(-1, 2, (weight.shape[1],), generator=generator)
        factors = torch.ldexp(torch.ones(len(power)), power).to(weight)
        fold(model, each, factors)
        done.append((each, factors))
    try:
        yield
    finally:
        for each, factors in done:
            fold(model, each, 1 / factors)


def _trace(model: nn.Module, ids_BT: Tensor) -> tuple[list[tuple[str, ...]], list[str | None]]:
    """Layers that read one tensor, as they are called, and the norm that it came out of."""
    reads: dict[int, list[str]] = {}
    norms: dict[int, str] = {}
    alive: list[Tensor] = []  # no storage is used twice while this holds them

    def read(name: str, x: Tensor) -> None:
        alive.append(x)
        reads.setdefault(x.untyped_storage().data_ptr(), []).append(name)

    def made(name: str, y: object) -> None:
        if isinstance(y, Tensor):
            alive.append(y)
            norms[y.untyped_storage().data_ptr()] = name

    hooks = []
    for name, layer in linear_layers(model).items():
        hooks.append(layer.register_forward_pre_hook(lambda m, x, name=name: read(name, x[0])))
    for name, module in model.named_modules():
        if getattr(getattr(module, "weight", None), "ndim", 0) == 1:
            hooks.append(module.register_forward_hook(lambda m, x, y, name=name: made(name, y)))
    try:
        model(**calibration_inputs(model, ids_BT), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return [tuple(dict.fromkeys(names)) for names in reads.values()], [norms.get(place) for place in reads]


def _candidates(model: nn.Module, readers: Sequence[str], maker: str | None) -> list[str]:
    """The norm that makes an input, or linear layers beside its reader with as many outputs."""
    if maker is not None:
        return [maker]
    inputs = weight_matrix(model.get_submodule(readers[0])).shape[1]
    parent = readers[0].rpartition(".")[0]
    beside = [n for n in linear_layers(model) if n.rpartition(".")[0] == parent and n not in readers]
    return [n for n in beside if weight_matrix(model.get_submodule(n)).shape[0] == inputs]


def _role(name: str) -> str:
    return re.sub(r"\.\d+(?=\.|$)", ".*", name)
