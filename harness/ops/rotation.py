"""Rotating the residual stream of a model, and what its heads pass on, without changing what it computes.

Shapes: D model dim, H head dim; rows of activations x turn into x Q, so that a layer that reads them has the
weight W Q and one that writes them Q^T W
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import IncompatibleError


def paley(size: int) -> Tensor | None:
    """A Hadamard matrix of this size by Paley's constructions over a prime field; None where they give none.

    Paper: Paley 1933, On orthogonal matrices
    """
    for half, prime in ((1, size - 1), (2, size // 2 - 1)):
        if prime < 3 or any(prime % d == 0 for d in range(2, int(prime**0.5) + 1)) or size % 4:
            continue
        if prime % 4 != (3 if half == 1 else 1):
            continue
        squares = {i * i % prime for i in range(1, prime)}
        character = torch.tensor([0] + [1 if i in squares else -1 for i in range(1, prime)]).double()
        place = torch.arange(prime)
        jacobsthal = character[(place[:, None] - place) % prime]
        border = torch.zeros(prime + 1, prime + 1, dtype=torch.float64)
        border[0, 1:], border[1:, 0] = 1, 1 if half == 2 else -1
        border[1:, 1:] = jacobsthal
        eye = torch.eye(prime + 1, dtype=torch.float64)
        if half == 1:
            return border + eye
        one, other = torch.tensor([[1.0, 1], [1, -1]]), torch.tensor([[1.0, -1], [-1, -1]])
        return torch.kron(border, one.double()) + torch.kron(eye, other.double())
    return None


def hadamard(size: int, *, generator: torch.Generator) -> Tensor:
    """A random orthogonal matrix (size x size, float64) with entries of one magnitude, signs drawn at random.

    Where no construction here gives a Hadamard matrix of that size, a random rotation stands for its largest
    factor that has none, so that magnitudes differ within blocks of that factor's size.
    """
    odd = size & -size
    small, power = size // odd, odd
    core = torch.ones(1, 1, dtype=torch.float64)
    if small > 1:
        found = None
        while found is None and power > 1:
            small, power = small * 2, power // 2
            found = paley(small)
        if found is None:
            small, power = size // odd, odd
            found = torch.linalg.qr(torch.randn(small, small, generator=generator, dtype=torch.float64))[0]
            found = found * small**0.5
        core = found
    while power > 1:
        core, power = torch.cat([torch.cat([core, core], 1), torch.cat([core, -core], 1)]), power // 2
    signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
    turned: Tensor = core / size**0.5 * signs
    return turned


@dataclass(kw_only=True)
class Rotated:
    """How a model was rotated, kept on it as `rotated`."""

    residual_DD: Tensor
    heads_HH: Tensor | None
    readers: dict[str, list[str]]
    """Linear layers that read the output of each norm; none for the norm before the head."""
    writers: list[str]
    attentions: list[str]
    """Modules with `v_proj` and `o_proj`, whose heads are rotated."""
    handles: list[Any] = field(default_factory=list)


def rms_norms(model: Any) -> dict[str, nn.Module]:
    """The model's RMS norms over its width, by name.

    Raises: IncompatibleError where it has none
    """
    width = model.get_input_embeddings().weight.shape[1]
    found = {
        name: module
        for name, module in model.named_modules()
        if "rms" in type(module).__name__.lower()
        and getattr(module, "weight", torch.empty(0)).shape == (width,)
    }
    if not found:
        raise IncompatibleError(
            f"{type(model).__name__} has no RMS norms over its {width} features; other norms do not commute "
            "with a rotation, so rotation=none is what it takes"
        )
    return found


def trace(model: Any, *, heads: bool) -> Rotated:
    """Which layers read and write the residual stream, found by watching storages in one pass.

    A model without data will do, where it runs without.
    Raises: IncompatibleError where the model has no RMS norms of its width
    """
    width = model.get_input_embeddings().weight.shape[1]
    norms = rms_norms(model)
    head = model.get_output_embeddings()
    linear = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear) and m is not head}
    outputs: dict[int, str] = {}
    read: dict[str, str] = {}
    alive: list[Tensor] = []

    def wrote(name: str, module: nn.Module, args: Any, output: Tensor) -> None:
        alive.append(output)
        outputs[output.untyped_storage()._cdata] = name

    def reads(name: str, module: nn.Module, args: Any) -> None:
        norm = outputs.get(args[0].untyped_storage()._cdata)
        if norm is not None:
            read[name] = norm

    hooks = [m.register_forward_hook(partial(wrote, n)) for n, m in norms.items()]
    hooks += [m.register_forward_pre_hook(partial(reads, n)) for n, m in linear.items()]
    try:
        probe(model)
    finally:
        for hook in hooks:
            hook.remove()
    readers = {norm: [name for name, source in read.items() if source == norm] for norm in norms}
    # Beside a reader, so that what projects something else to the model's width (relative positions) is none.
    inside = {name.rpartition(".")[0] for name in read}
    writers = [
        n
        for n, m in linear.items()
        if n not in read and m.out_features == width and n.rpartition(".")[0] in inside
    ]
    owners = [n for n, m in model.named_modules() if f"{n}.v_proj" in linear and f"{n}.o_proj" in linear]
    found = Rotated(
        residual_DD=torch.empty(0),
        heads_HH=None,
        readers=readers,
        writers=writers,
        attentions=owners if heads else [],
    )
    return found


@torch.no_grad()
def probe(model: Any) -> Tensor:
    """Logits of a few tokens."""
    device = next(model.parameters()).device
    ids = torch.arange(1, 12, device=device)[None] % model.get_input_embeddings().weight.shape[0]
    return model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]


def one_end(model: Any, plan: Rotated) -> str:
    """The norm before the head, at which the rotation ends.

    Raises: IncompatibleError where several norms look like it, or none
    """
    last = [name for name, layers in plan.readers.items() if not layers]
    if len(last) != 1:
        raise IncompatibleError(
            f"{type(model).__name__} has {len(last)} norms that no linear layer reads, and a rotation of the "
            "residual stream ends at exactly one: it is not a pre-norm model as Llama is; use rotation=none"
        )
    return last[0]


def attach(model: Any, plan: Rotated) -> None:
    """Rotate what the embedding gives and turn back what the last norm reads; their weights stay."""
    last = one_end(model, plan)
    device = next(model.parameters()).device
    q = plan.residual_DD.to(device)

    def into(module: nn.Module, args: Any, output: Tensor) -> Tensor:
        return output @ q.to(output)

    def back(module: nn.Module, args: Any) -> Any:
        return (args[0] @ q.T.to(args[0]), *args[1:])

    plan.handles = [
        model.get_input_embeddings().register_forward_hook(into),
        model.get_submodule(last).register_forward_pre_hook(back),
    ]
    model.rotated = plan


@torch.no_grad()
def turn(model: Any, plan: Rotated, *, back: bool = False) -> None:
    """Write the rotation, or its inverse, into the weights of readers, writers and heads."""
    q = plan.residual_DD.T if back else plan.residual_DD
    for name in (layer for layers in plan.readers.values() for layer in layers):
        _set(model.get_submodule(name), lambda w: w @ q.to(w))
    for name in plan.writers:
        _set(model.get_submodule(name), lambda w: q.T.to(w) @ w, lambda b: b @ q.to(b))
    if plan.heads_HH is None:
        return
    h = plan.heads_HH.T if back else plan.heads_HH
    for owner in plan.attentions:
        value, out = (model.get_submodule(f"{owner}.{n}") for n in ("v_proj", "o_proj"))
        _set(value, lambda w: _by_head(w.T, h).T, lambda b: _by_head(b, h))
        _set(out, lambda w: _by_head(w, h))


@torch.no_grad()
def fold_norms(model: Any, plan: Rotated) -> None:
    """Move the factors of the norms into the layers that read them, and leave ones."""
    for norm, layers in plan.readers.items():
        factor = model.get_submodule(norm).weight
        if not layers:
            continue
        for name in layers:
            _set(model.get_submodule(name), lambda w, factor=factor: w * factor.to(w))
        factor.fill_(1)


def unrotate(model: Any) -> None:
    """Undo the rotation of a model whose layers are dense, in place; its norms keep factors of one."""
    plan = getattr(model, "rotated", None)
    if plan is None:
        return
    turn(model, plan, back=True)
    for handle in plan.handles:
        handle.remove()
    del model.rotated


def _by_head(x: Tensor, h_HH: Tensor) -> Tensor:
    turned: Tensor = x.unflatten(-1, (-1, len(h_HH))) @ h_HH.to(x)
    return turned.flatten(-2)


def _set(layer: Any, change: Any, change_bias: Any = None) -> None:
    """Change a weight, and a bias where there is a way, in float64."""
    layer.weight.copy_(change(layer.weight.double()))
    if change_bias is not None and layer.bias is not None:
        layer.bias.copy_(change_bias(layer.bias.double()))
