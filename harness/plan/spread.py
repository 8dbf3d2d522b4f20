"""What a training on many processes takes of each: memory, what it sends in a step, what it waits for."""

from __future__ import annotations

import math
from dataclasses import dataclass

from harness.axes.parallelism import Spread
from harness.plan.estimate import EVERY, Scored, Size

PASSES = {False: 4, True: 6}
"""All-reduces of a block along the tensor direction, without and with recomputation of its forward pass."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """One process's part of a training; of several kinds of processes, the one with most.

    Units: bytes; sent in one step by one process
    """

    grid: str
    processes: int
    memory: float
    along_data: float
    along_tensor: float
    along_pipeline: float
    bubble: float
    """Time a pipeline waits over the time it works (Narayanan et al. 2021, arXiv:2104.04473, section 2.2)."""


def share(
    size: Size,
    spread: Spread,
    *,
    batch_size: int,
    micro_batch_size: int | None,
    sequence_length: int,
    mixed: bool,
    recompute: bool,
    state_bytes: float | None = None,
    scored: Scored = EVERY,
) -> Share:
    """Memory, communication and waiting of one process in fp32 or mixed precision.

    Weights, gradients and optimizer state (`state_bytes` for all weights, two moments where None) are in fp32
    and split along pipeline and tensor, and along data as `spread` says; embedding and head are whole on the
    stage that has them. What a step gathers of split weights stands whole, a stage at once.

    Paper: along tensor and pipeline arXiv:2104.04473, section 3.2; along data arXiv:1910.02054, section 7
    Error: a pipeline's stages keep as much of a piece as the mean stage does; the vocabulary is whole
    """
    element = 2 if mixed else 4
    stages, parts, sharing = spread.pipeline, spread.tensor, spread.data
    layers = math.ceil(size.num_layers / stages)
    # One table of the vocabulary is the first stage's, one the last one's.
    tables = size.vocab_size * size.dim * (1 if size.tied or stages > 1 else 2)
    weights = layers * size.layer_weights / parts + tables + (2 * layers + 1) * size.dim
    states = (8.0 if state_bytes is None else state_bytes / size.parameters) * weights
    held = 0.0
    for name, bytes_ in (("weights", 4.0 * weights), ("gradients", 4.0 * weights), ("states", states)):
        held += bytes_ / sharing if name in spread.splits else bytes_
    if "weights" in spread.splits and sharing > 1:
        held += 4.0 * weights / (1 if stages > 1 else max(layers, 1))
    local = batch_size // sharing
    micro = min(micro_batch_size or local, local)
    pieces = min(spread.micro_batches, micro)
    at_once = micro / pieces
    kept = size.activations(
        sequence_length,
        element=element,
        recompute=recompute,
        scored=scored,
        autocast=mixed,
        parts=parts,
    )
    logits = size.logits(element=element, scored=scored)
    blocks = (kept - logits) * layers / size.num_layers
    # The first stage waits for as many pieces as there are stages, the last one for none, or both for all.
    first, last = (min(stages, pieces), 1) if spread.alternates else (pieces, pieces)
    kept = max(blocks * first, (blocks + logits) * last) if stages > 1 else blocks + logits
    tokens, steps = at_once * sequence_length, math.ceil(local / micro) * pieces
    hidden = tokens * size.dim * element
    ring = (sharing - 1) / sharing * 4.0 * weights
    return Share(
        grid=f"{sharing} data x {stages} pipeline x {parts} tensor",
        processes=stages * parts * sharing,
        memory=held + tokens * kept,
        along_data=ring * (3 if "weights" in spread.splits else 2),
        along_tensor=PASSES[recompute] * layers * steps * 2 * (parts - 1) / parts * hidden,
        along_pipeline=2 * steps * hidden if stages > 1 else 0.0,
        bubble=(stages - 1) / pieces,
    )
