"""Layers split over processes by heads and hidden units, and what of a model cannot be spread at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from harness import IncompatibleError, Method, Position

COLUMNS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
"""Linear layers whose outputs are split."""
ROWS = ("o_proj", "down_proj")
"""Linear layers whose inputs are split."""
HEADS = ("num_heads", "kv_heads")
"""What an attention counts of its heads: all of the model, and its share once they are split."""


def unsplittable(model: nn.Module | None, *, pipeline: int, tensor: int) -> Iterator[str]:
    """Why the modules of a model, which may be shapes alone, cannot be spread so, and what would work."""
    if model is None:
        return
    if pipeline > 1 and getattr(getattr(model, "model", None), "encoder", None) is not None:
        yield "a pipeline splits decoders; use another parallelism for an encoder"
    methods = [module for module in model.modules() if isinstance(module, Method)]
    adding = [one for one in methods if type(one).loss_terms is not Method.loss_terms]
    if pipeline > 1 and adding:
        yield (
            f"{adding[0].axis}={adding[0].name} adds to the loss, which the last process of a pipeline "
            "computes from its own layers; use another parallelism"
        )
    heads = {getattr(module, name, tensor) for module in attentions(model) for name in HEADS}
    for count in sorted(count for count in heads if count % tensor):
        yield (
            f"model.num_heads and the heads of keys and values must be multiples of the {tensor} processes "
            f"that split them, and {count} is not"
        )
    if tensor > 1 and any(hasattr(module, "q_norm") for module in model.modules()):
        yield "qk_norm shares weights between split heads; drop that stabilizer or use another parallelism"
    for position in (module for module in model.modules() if isinstance(module, Position)):
        embeds = type(position).embed is not Position.embed
        if pipeline > 1 and (embeds or next(position.parameters(), None) is not None):
            yield (
                f"position={position.name} adds to embeddings or has weights, which the processes of a "
                "pipeline do not share; use position=rope or another parallelism"
            )
        if tensor > 1 and (position.has_bias() or position.has_query_bias()):
            yield f"the score biases of position={position.name} do not follow split heads; use position=rope"


def attentions(model: nn.Module) -> list[nn.Module]:
    """The layers that have heads."""
    return [module for module in model.modules() if hasattr(module, "q_proj")]


def split_layers(model: nn.Module, mesh: Any, count: int) -> None:
    """Megatron's split: attention by heads, feed-forward by hidden units.

    Raises: IncompatibleError where a model has no such layers or shares weights between heads
    """
    from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

    for message in unsplittable(model, pipeline=1, tensor=count):
        raise IncompatibleError(message)
    plan: dict[str, Any] = {}
    for name, module in model.named_modules():
        last = name.rpartition(".")[2]
        if isinstance(module, nn.Linear) and last in COLUMNS:
            plan[name] = ColwiseParallel()
        elif isinstance(module, nn.Linear) and last in ROWS:
            plan[name] = RowwiseParallel()
    if not plan:
        raise IncompatibleError(f"{type(model).__name__} has no layers named {COLUMNS + ROWS} to split")
    for module in attentions(model):
        for name in HEADS:
            if hasattr(module, name):
                setattr(module, name, getattr(module, name) // count)
    parallelize_module(model, mesh, plan)
