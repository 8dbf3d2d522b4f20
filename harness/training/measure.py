"""Measured facts: FLOPs under one stated convention, peak rates, and memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, Self
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from harness.data.template import IGNORED
from harness.ops.packed_linear import PackedLinear

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100": 989e12,
    "H800": 989e12,
    "A100": 312e12,
    "A800": 312e12,
    "L40S": 362e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
    "RTX 3090": 71e12,
    "A10": 125e12,
    "T4": 65e12,
}
"""Dense 16-bit matmul peak of NVIDIA GPUs by a part of their name, from the vendor's data sheets, FLOP/s."""

FLOP_CONVENTION = (
    "per token: 4 x weights that are multiplied + 2 x those that are trained "
    "+ 12 x layers x heads x head size x sequence length (PaLM, arXiv:2204.02311, appendix B); "
    "embedding look-ups, norms and recomputation count nothing"
)

SOURCE = "encoder_input_ids"
"""What an encoder reads of a batch."""


def matmul_weights(model: nn.Module) -> tuple[int, int]:
    """Weights that take part in matrix products: (all, trained).

    Differs: PaLM counts every parameter; a look-up multiplies nothing, so input embeddings are left out
    unless the output head shares them
    """
    embeddings = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    shared = id(head.weight) if head is not None else None
    everything = trained = 0
    seen: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) in seen or parameter.ndim < 2:
                continue
            if id(parameter) in embeddings and id(parameter) != shared:
                continue
            seen.add(id(parameter))
            # A packed weight holds several numbers in one element; the layer knows its true shape.
            true = getattr(module, "in_features", 0) * getattr(module, "out_features", 0)
            size = max(parameter.numel(), true)
            everything += size
            trained += size if parameter.requires_grad else 0
        if isinstance(module, PackedLinear):  # its codes are buffers
            everything += module.num_weights()
    return everything, trained


def flops_per_token(model: nn.Module, sequence_length: int) -> float:
    """FLOPs that training spends on one token, by FLOP_CONVENTION."""
    everything, trained = matmul_weights(model)
    config = getattr(model, "config", None)
    spec = getattr(config, "spec", None)
    read: Callable[..., Any] = lambda names: next(  # noqa: E731
        (_get(holder, name) for name in names for holder in (spec, config) if _get(holder, name)), 0
    )
    layers = read(("num_layers", "num_hidden_layers", "n_layer"))
    heads = read(("num_heads", "num_attention_heads", "n_head"))
    width = read(("dim", "hidden_size", "n_embd"))
    head_dim = read(("head_dim",)) or (width // heads if heads else 0)
    return float(4 * everything + 2 * trained + 12 * layers * heads * head_dim * sequence_length)


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def peak_flops(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """Peak matmul rate and where it is from: a data sheet, or a measurement on this machine.

    Units: FLOP/s
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for part, peak in PEAKS.items():
            if part in name:
                return peak, f"data sheet of {part}, dense 16-bit"
    return _measured_peak(device.type, dtype, torch.get_num_threads())


@cache
def _measured_peak(device_type: str, dtype: torch.dtype, num_threads: int) -> tuple[float, str]:
    """The best of a few square matrix products; cached for the process and its thread count."""
    size = 768
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        left, right = (torch.rand(size, size, device=device_type).to(dtype) for _ in range(2))
        best = float("inf")
        for _ in range(5):
            start = time.perf_counter()
            torch.matmul(left, right)
            if device_type == "cuda":
                torch.cuda.synchronize()
            best = min(best, time.perf_counter() - start)
    what = f"measured: {size} x {size} {str(dtype).removeprefix('torch.')} matmul, {num_threads} threads"
    return 2 * size**3 / best, what


def padded_tokens(batch: Mapping[str, Tensor], *, sequences: int) -> int:
    """Positions of so many sequences of a batch, padding included: what a step's memory grows with.

    Parts of a pair (`chosen_input_ids`, ...) are read below each other, at the width of the widest; an
    encoder's sources have a width of their own
    """
    names = [name for name in batch if name.endswith("input_ids") and name != SOURCE]
    width = max((batch[name].shape[1] for name in names), default=0)
    return sequences * len(names) * width + source_tokens(batch, sequences=sequences)


def source_tokens(batch: Mapping[str, Tensor], *, sequences: int) -> int:
    """Positions of so many sources that an encoder reads, padding included."""
    return sequences * batch[SOURCE].shape[1] if SOURCE in batch else 0


def scored_tokens(batch: Mapping[str, Tensor], *, sequences: int) -> int:
    """Most labels that so many sequences in a row have: whose logits a loss on answers reads."""
    labels = [value != IGNORED for name, value in batch.items() if name.endswith("labels_BT")]
    counts = [
        sum(int(value[start : start + sequences].sum()) for value in labels)
        for start in range(0, max(map(len, labels), default=0), sequences)
    ]
    return max(counts, default=0)


def num_bytes(values: Iterable[Any]) -> int:
    """Bytes of the tensors among `values`; of a DTensor, this process's share."""
    found = (getattr(value, "_local_tensor", value) for value in values if isinstance(value, Tensor))
    return sum(tensor.numel() * tensor.element_size() for tensor in found)


class PeakTracker(TorchDispatchMode):
    """Follows the storages that are held and every one made while it is active, until they are freed.

    State: `held` bytes alive now, `peak` the most at once; autograd's saved tensors count, and what is
    resized in place, as sharded weights are between their uses
    Units: bytes
    Error: temporary buffers inside a kernel are not seen
    """

    def __init__(self, held: Iterable[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.held = self.peak = 0
        self.known: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()
        """Each storage's size, in a list of its own, so that the end of a storage finds the latest."""
        for value in held:
            if isinstance(value, Tensor):
                self._follow(value)

    def __enter__(self) -> Self:
        plain = self.plain_resize = torch.UntypedStorage.resize_

        def resize_(storage: Any, size: int) -> Any:
            result = plain(storage, size)
            self._measure(storage)
            return result

        torch.UntypedStorage.resize_ = resize_  # type: ignore[method-assign, assignment]  # undispatched
        return super().__enter__()  # type: ignore[no-untyped-call, no-any-return]

    def __exit__(self, *error: Any) -> None:
        torch.UntypedStorage.resize_ = self.plain_resize  # type: ignore[method-assign]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor):
                self._follow(value)
        return result

    def _follow(self, value: Tensor) -> None:
        storage = getattr(value, "_local_tensor", value).untyped_storage()  # a DTensor's own share
        if storage not in self.known:
            self._measure(storage)

    def _measure(self, storage: Any) -> None:
        if storage not in self.known:
            size = self.known[storage] = [0]
            finalize(storage, self._freed, size)
        else:
            size = self.known[storage]
        self.held += storage.nbytes() - size[0]
        size[0] = storage.nbytes()
        self.peak = max(self.peak, self.held)

    def _freed(self, size: list[int]) -> None:
        self.held -= size[0]


def resident_bytes() -> int:
    """Peak resident size of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
