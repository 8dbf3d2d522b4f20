"""Calibration data, and running it through a model block by block, each reading what finished ones give."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from harness.errors import ConfigError, DataError, EffectError
from harness.ops.experts import fuse_experts, unfuse_experts
from harness.ops.packed_linear import PackedLinear, linear_layers, weight_matrix

if TYPE_CHECKING:
    from collections.abc import Iterator

Observe = Callable[[str, Tensor, int], None]
"""Called with a layer's name, its inputs (rows x in, float32) and the number of the batch."""
Finish = Callable[[Sequence[str]], None]
"""Called with the names of a block's layers once all batches were observed; replaces the layers."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Token batches a method may look at; a declared input with a hash of its own.

    Shapes: batches_BT and held_out_BT, each B x T int64
    """

    batches_BT: Sequence[Tensor]
    sha256: str
    held_out_BT: Sequence[Tensor] = ()
    """Batches that nothing is fitted to: errors are reported on them, and a method may choose by them."""


class _StopForwardError(Exception):
    """Ends a forward pass early."""


def calibration_inputs(model: nn.Module, ids_BT: Tensor) -> dict[str, Tensor]:
    """What a model is given of a batch: all of it, or where it has an encoder of ours, the first half as the
    source and the rest to the decoder.
    """
    if getattr(getattr(model, "model", None), "encoder", None) is None:
        return {"input_ids": ids_BT}
    half = ids_BT.shape[1] // 2
    return {"encoder_input_ids": ids_BT[:, :half], "input_ids": ids_BT[:, half:]}


def block_names(model: nn.Module) -> list[str]:
    """Names of the repeated blocks: members of the outermost module lists that hold linear layers, packed or
    not."""
    packed = (name for name, module in model.named_modules() if isinstance(module, PackedLinear))
    layers = {*linear_layers(model), *packed}
    found: list[str] = []
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList) or any(name.startswith(f"{b}.") for b in found):
            continue
        blocks = [f"{name}.{i}" for i in range(len(module))]
        if any(layer.startswith(f"{name}.") for layer in layers):
            found += blocks
    return found


@contextmanager
def observing(
    model: nn.Module, names: Sequence[str], observe: Callable[[str, Tensor], None]
) -> Iterator[None]:
    """Within the context, `observe` sees the inputs of the named layers; having seen all, it ends the pass.

    Raises: DataError where they are not finite
    """
    waiting = set(names)

    def hook(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def see(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            x = inputs[0].detach().flatten(0, -2).float()
            if not torch.isfinite(x).all():
                raise DataError(
                    f"layer {name} reads {int((~torch.isfinite(x)).sum())} calibration inputs that are not "
                    "finite: the model's weights hold NaN, or it overflows its number format; see that its "
                    "perplexity is finite before it is quantized"
                )
            observe(name, x)
            waiting.discard(name)
            if not waiting:
                raise _StopForwardError

        return see

    handles = [model.get_submodule(n).register_forward_pre_hook(hook(n)) for n in names]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def walk(
    model: nn.Module,
    batches_BT: Sequence[Tensor],
    observe: Observe,
    finish: Finish,
    *,
    sequential: bool = False,
) -> None:
    """Visit all linear layers in the order of the computation.

    Layers of a block are observed on what the finished blocks before it give; layers outside blocks come
    last, each observed on the finished model. `sequential` finishes the layers of a block in turn, so that
    each is observed on what the finished ones before it in its block give too.
    """
    blocks = block_names(model)
    lists = list(dict.fromkeys(name.rpartition(".")[0] for name in blocks))
    for group in sorted(lists, key=lambda name: "encoder" not in name):
        members = [n for n in blocks if n.rpartition(".")[0] == group]
        _walk_list(model, members, batches_BT, observe, finish, sequential=sequential)
    inside = tuple(f"{name}." for name in blocks)
    rest = [name for name in linear_layers(model) if not name.startswith(inside)]
    if rest:
        for number, ids_BT in enumerate(batches_BT):
            with observing(model, rest, _numbered(observe, number)), suppress(_StopForwardError):
                model(**calibration_inputs(model, ids_BT), use_cache=False)
        finish(rest)


def change_weights(
    model: nn.Module,
    change: Callable[[str, Tensor, Any], Tensor],
    *,
    what: str,
    gathers: Callable[[int, torch.device], Any] | None = None,
    calibration: Calibration | None = None,
) -> None:
    """Give every linear layer the weight `change(name, weight_OI, inputs)`, in place; fused experts each.

    Where something `gathers` (Hessian, SquaredNorms), layers are met in the order of the computation, and
    `inputs` is what it summed of what the changed blocks before give; else `inputs` is None.
    Shapes: weight out x in, float32
    Raises: EffectError where the model has no linear layer, ConfigError where one saw no calibration token;
    `what` names the method (`pruner=wanda`)
    """
    unfuse_experts(model)
    layers = linear_layers(model)
    if not layers:
        kinds = sorted({type(module).__name__ for module in model.modules()})
        raise EffectError(f"{what} found no linear layer; the model has {', '.join(kinds)}")
    seen: dict[str, Any] = {}

    def observe(name: str, x: Tensor, number: int) -> None:
        assert gathers is not None
        if name not in seen:
            seen[name] = gathers(x.shape[-1], x.device)
        seen[name].add(x)

    def finish(names: Sequence[str]) -> None:
        for name in names:
            if gathers is not None and name not in seen:  # an expert that no token reached
                raise ConfigError(f"{what}: {unreached(model, name)}")
            weight_OI = weight_matrix(layers[name])
            weight_OI.copy_(change(name, weight_OI.float(), seen.pop(name, None)))  # a view of the parameter

    with torch.no_grad():
        if gathers is None:
            finish(list(layers))
        else:
            assert calibration is not None
            walk(model, calibration.batches_BT, observe, finish)
    fuse_experts(model)


def unreached(model: nn.Module, name: str) -> str:
    """Why a linear layer of a calibrated model saw no token, and what would help."""
    owner = name.rpartition(".")[0]
    if sum(part.isdigit() for part in name.split(".")) > 1:  # of a list in a block: an expert
        return f"layer {name} saw no calibration token; raise calibration_sequences"
    return (
        f"layer {name} is never called: {type(model.get_submodule(owner)).__name__} reads its weight as a "
        "tensor, so that what it multiplies cannot be seen; use a method without calibration"
    )


def _walk_list(
    model: nn.Module,
    blocks: Sequence[str],
    batches_BT: Sequence[Tensor],
    observe: Observe,
    finish: Finish,
    *,
    sequential: bool,
) -> None:
    hidden, calls = _record(model, blocks, batches_BT)
    for place, name in enumerate(blocks):
        block = model.get_submodule(name)
        names = [layer for layer in linear_layers(model) if layer.startswith(f"{name}.")]
        run = partial(_run, block, hidden[0], calls[0][place])
        for part in _in_turn(model, name, names, run) if sequential else [names]:
            for number in range(len(batches_BT)):
                with observing(model, part, _numbered(observe, number)), suppress(_StopForwardError):
                    _run(block, hidden[number], calls[number][place])
            if part:
                finish(part)
        hidden = [_run(block, x_BTD, call[place]) for x_BTD, call in zip(hidden, calls, strict=True)]


def _in_turn(
    model: nn.Module, block: str, names: Sequence[str], run: Callable[[], object]
) -> list[list[str]]:
    """Layers in the order they are called, those that read the same input together (queries and keys, say).

    The experts of a mixture read rows of one input, each its own: layers of one role count as one.
    """
    order: list[tuple[str, Tensor]] = []
    hooks = [
        model.get_submodule(name).register_forward_pre_hook(
            lambda module, inputs, name=name: order.append((name, inputs[0]))
        )
        for name in names
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    reads = {name: x.untyped_storage().data_ptr() for name, x in order}  # `order` keeps the inputs alive
    role = {name: re.sub(r"\.\d+(?=\.|$)", ".*", name.removeprefix(f"{block}.")) for name in names}
    first: dict[str, int] = {}
    parts: dict[int | str, list[str]] = {}
    for name in dict.fromkeys([*reads, *names]):
        if name in reads:
            first.setdefault(role[name], reads[name])
        parts.setdefault(first.get(role[name], role[name]), []).append(name)
    return list(parts.values())


def _numbered(observe: Observe, number: int) -> Callable[[str, Tensor], None]:
    return lambda name, x: observe(name, x, number)


def _record(
    model: nn.Module, blocks: Sequence[str], batches_BT: Sequence[Tensor]
) -> tuple[list[Tensor], list[list[tuple[tuple[Any, ...], dict[str, Any]]]]]:
    """What the first block reads, and every block's other arguments, for each batch."""
    hidden: list[Tensor] = []
    calls: list[list[tuple[tuple[Any, ...], dict[str, Any]]]] = []
    last = model.get_submodule(blocks[-1])

    def record(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        kwargs = dict(kwargs)
        x_BTD = args[0] if args else kwargs.pop("hidden_states")
        if not calls[-1]:
            hidden.append(x_BTD.detach())
        calls[-1].append((args[1:], kwargs))
        if module is last:
            raise _StopForwardError

    handles = [model.get_submodule(n).register_forward_pre_hook(record, with_kwargs=True) for n in blocks]
    try:
        for ids_BT in batches_BT:
            calls.append([])
            try:
                model(**calibration_inputs(model, ids_BT), use_cache=False)
            except _StopForwardError:
                continue
    finally:
        for handle in handles:
            handle.remove()
    return hidden, calls


def _run(block: nn.Module, x_BTD: Tensor, call: tuple[tuple[Any, ...], Mapping[str, Any]]) -> Tensor:
    args, kwargs = call
    output = block(x_BTD, *args, **kwargs)
    y_BTD: Tensor = output[0] if isinstance(output, tuple) else output
    return y_BTD
