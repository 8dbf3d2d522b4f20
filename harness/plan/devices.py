"""Whether this machine has the devices that stages name."""

from __future__ import annotations

from collections.abc import Iterable

from harness.plan.node import Node


def lacking(nodes: Iterable[Node]) -> str:
    """Why stages cannot run on this machine, which has no CUDA device; empty where they can."""
    if not any(node.device == "cuda" for node in nodes):
        return ""
    import torch

    if torch.cuda.is_available():
        return ""
    return (
        f"device=cuda: torch {torch.__version__} sees no CUDA device on this machine; use device=auto, which "
        "takes what there is, or a launcher that places a sweep's workers where there is one "
        "(hydra/launcher=submitit_slurm, say)"
    )
