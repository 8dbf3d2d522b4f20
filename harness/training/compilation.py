"""Compiled training: torch.compile of each repeated block, so that blocks of one shape share a graph."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from harness.errors import ConfigError


@dataclass
class Stopwatch:
    """What compilation cost so far; what lies in torch's cache on disk, other cells' graphs too, costs less.

    Units: seconds of the host, in which a step waits
    """

    seconds: float = 0.0
    graphs: int = 0
    depth: int = 0
    started: float = 0.0

    def start(self, args: Any) -> None:
        """Called by torch before it compiles a graph, a backward one too."""
        if not self.depth:
            self.started = time.perf_counter()
        self.depth += 1

    def end(self, args: Any) -> None:
        """Called by torch afterwards."""
        self.depth -= 1
        self.graphs += 1
        if not self.depth:
            self.seconds += time.perf_counter() - self.started


@contextmanager
def compiled_blocks(model: nn.Module) -> Iterator[Stopwatch]:
    """Run every repeated block of a model compiled, and leave the model as it was.

    Names in the state dict stay. A step under another dispatch mode (the traced one) runs uncompiled.

    Raises: ConfigError where nothing can compile, and where the model has no such blocks
    """
    from torch._dynamo.callback import callback_handler

    blocks = repeated_blocks(model)
    if not blocks:
        raise ConfigError(
            f"compile=true: {type(model).__name__} names no repeated blocks (_no_split_modules) to compile; "
            "use compile=false"
        )
    refuse_without_compiler(next(model.parameters()).device)
    torch.compiler.reset()  # graphs of another model in this process would count as misses of this one's
    watch = Stopwatch()
    callback_handler.register_start_callback(watch.start)
    callback_handler.register_end_callback(watch.end)
    for block in blocks:
        block.compile()
    try:
        yield watch
    finally:
        for block in blocks:
            block._compiled_call_impl = None
        callback_handler.remove_start_callback(watch.start)
        callback_handler.remove_end_callback(watch.end)


def repeated_blocks(model: nn.Module) -> list[nn.Module]:
    """The blocks that a Hugging Face model names as what must stay in one piece."""
    named = {name for part in model.modules() for name in getattr(part, "_no_split_modules", None) or ()}
    return [part for part in model.modules() if type(part).__name__ in named]


def refuse_without_compiler(device: torch.device) -> None:
    """Raises: ConfigError where torch.compile cannot make code for a device"""
    if device.type == "cpu":
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except (InvalidCxxCompiler, OSError) as error:
            raise ConfigError(
                "compile=true: torch.compile finds no C++ compiler; install g++ or clang (or name one in the "
                "environment variable CXX), or use compile=false"
            ) from error
    elif device.type == "cuda":
        from torch.utils._triton import has_triton

        if not has_triton():
            raise ConfigError(
                "compile=true: torch.compile needs Triton and a GPU that it knows; install triton, or use "
                "compile=false"
            )
