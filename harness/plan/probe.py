"""A short probe: a few real training steps of a plan's model, so that hours can be told before any run."""

from __future__ import annotations

import time
from statistics import median

from harness.axes import MODEL_AXES
from harness.plan.node import Node

SEQUENCES = 4
"""Sequences of one probed step at most; a training's own batch is larger, and a little faster a token."""
STEPS = 3


def probe_speed(node: Node, *, sequence_length: int, flops_per_token: float) -> float:
    """FLOP/s that full steps of AdamW reach on this machine, the first (allocations) left out.

    Units: FLOP/s by the convention of `flops_per_token`
    """
    import torch

    from harness.model import build
    from harness.training.losses import language_modeling_loss

    spec = node.cell.spec()
    assert spec is not None, "a probe builds the cell's own model"
    shape = {axis: choice for axis in MODEL_AXES if (choice := node.cell.choice(axis)) is not None}
    model = build(spec, shape, seed=0).to(node.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    rows = min(node.config.batch_size, SEQUENCES)
    ids_BT = torch.randint(0, spec.vocab_size, (rows, sequence_length), device=node.device)
    seconds = []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        language_modeling_loss(model, {"input_ids": ids_BT, "labels_BT": ids_BT}).total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        if node.device == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return ids_BT.numel() * flops_per_token / median(seconds[1:])
