"""Efficiency: speed, memory, size and FLOPs of a model on this machine."""

import resource
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    ConfigError,
    Evaluation,
    Evaluator,
    Method,
    Metric,
    PeakTracker,
    Subject,
    check_counts,
    flops_per_token,
    hardware,
    hookimpl,
    last_logits,
    matmul_weights,
    peak_flops,
)

MIB = 1 << 20


NAMES = (
    *("prefill", "decode", "time_to_first_token", "peak_memory", "cache", "resident_memory"),
    *("weights_in_memory", "size_on_disk", "flops_per_token", "mfu"),
)


class Efficiency(Evaluator):
    """Prefill and decode speed, time to first token, memory, size and FLOPs.

    A prompt is read as decoding reads it: logits of its last token alone.

    State: `surroundings` puts the hardware into the key and keeps other cells off the machine meanwhile
    Units: tokens/s, seconds, MiB, FLOP per token; speeds are medians of the repeats
    Error: standard errors of the mean over repeats; peak memory counts tensors, not temporaries in a kernel;
        the cache is what is held after the last token, kept keys and values or states
    """

    name = "efficiency"

    @dataclass(frozen=True, kw_only=True)
    class Config(Evaluator.Config):
        prompt_tokens: int = 64
        """Length of the prompt; cut to what the model's window leaves."""
        new_tokens: int = 16
        """Tokens decoded one by one after it."""
        batch_size: int = 1
        """Sequences at once."""
        warmup: int = 1
        """Runs that are not counted."""
        repeats: int = 5
        """Runs that are; their spread is reported."""

        def __post_init__(self) -> None:
            counts = ("prompt_tokens", "new_tokens", "batch_size", "repeats")
            check_counts(self, "evaluator.efficiency", *counts)

    config: Config

    @classmethod
    def trial(cls) -> Any:
        return cls.Config(prompt_tokens=16, new_tokens=2, repeats=2)

    @classmethod
    def surroundings(cls, config: Any) -> dict[str, str]:
        return hardware()

    @classmethod
    def metrics(cls, config: Any, task: str) -> Sequence[str]:
        return NAMES

    @torch.inference_mode()
    def evaluate(self, task: str, subject: Subject) -> Evaluation:
        import pandas as pd

        config, model = self.config, subject.model
        length = min(config.prompt_tokens, subject.max_length - config.new_tokens)
        if length < 1:
            raise ConfigError(
                f"evaluator.efficiency.new_tokens={config.new_tokens} does not fit a window of "
                f"{subject.max_length} tokens"
            )
        generator = torch.Generator().manual_seed(0)
        vocab = model.get_output_embeddings().weight.shape[0]
        prompt_BT = torch.randint(vocab, (config.batch_size, length), generator=generator)
        prompt_BT = prompt_BT.to(subject.device)
        cache = tensor_bytes(self.decode(model, prompt_BT).past_key_values)
        for _ in range(config.warmup):
            self.run(model, prompt_BT)
        runs = pd.DataFrame([self.run(model, prompt_BT) for _ in range(config.repeats)])
        peak = self.peak_memory(model, prompt_BT)
        runs.insert(0, "task", task)
        runs.insert(1, "doc_hash", [str(index) for index in range(len(runs))])
        weights, trained = matmul_weights(model)
        # Forward FLOPs: a third of what training every weight would cost.
        flops = (flops_per_token(model, length) + 2 * (weights - trained)) / 3
        head = 2 * model.get_output_embeddings().weight.numel() if last_logits(model) else 0
        ceiling, source = peak_flops(prompt_BT.device, _dtype(model))
        prefill = statistics.median(runs["prefill"])
        stored = subject.stored_bytes
        metrics = [
            *(self.metric(task, name, runs[name]) for name in ("prefill", "decode")),
            self.metric(task, "time_to_first_token", runs["time_to_first_token"], unit="s", better=False),
            fixed(task, "peak_memory", peak / MIB, "MiB"),
            fixed(task, "cache", cache / 1024, "KiB"),
            fixed(task, "resident_memory", resident() / MIB, "MiB"),
            fixed(task, "weights_in_memory", weight_bytes(model) / MIB, "MiB"),
            *([fixed(task, "size_on_disk", stored / MIB, "MiB")] if stored is not None else []),
            fixed(task, "flops_per_token", flops, "FLOP"),
            fixed(task, "mfu", prefill * (flops - head * (1 - 1 / length)) / ceiling, "", better=True),
        ]
        facts = {
            "hardware": hardware(),
            "peak_flops": ceiling,
            "peak_flops_source": source,
            "prompt_tokens": length,
            "new_tokens": config.new_tokens,
            "batch_size": config.batch_size,
            "threads": torch.get_num_threads(),
            "weight_bytes": weight_bytes(model),
            "stored_bytes": stored,
        }
        return Evaluation(metrics=metrics, samples=runs, facts=facts)

    def run(self, model: nn.Module, prompt_BT: Tensor) -> dict[str, float]:
        """One prompt and the tokens after it, greedily, with the model's own cache."""
        tokens, first = prompt_BT.numel(), 0.0
        clock = _finisher(prompt_BT)

        def read() -> None:
            nonlocal first
            first = clock()

        start = clock()
        self.decode(model, prompt_BT, after_prompt=read)
        end = clock()
        decoded = self.config.new_tokens * len(prompt_BT)
        return {
            "prefill": tokens / (first - start),
            "decode": decoded / (end - first),
            "time_to_first_token": first - start,
        }

    def decode(
        self, model: nn.Module, prompt_BT: Tensor, *, after_prompt: Callable[[], None] = lambda: None
    ) -> Any:
        """What the model returns for the last of `new_tokens` tokens after a prompt."""
        out = model(input_ids=prompt_BT, use_cache=True, **last_logits(model))
        next_B1 = out.logits[:, -1:].argmax(-1)
        after_prompt()
        for _ in range(self.config.new_tokens):
            out = model(input_ids=next_B1, past_key_values=out.past_key_values, use_cache=True)
            next_B1 = out.logits[:, -1:].argmax(-1)
        return out

    def peak_memory(self, model: nn.Module, prompt_BT: Tensor) -> int:
        """Most bytes of tensors alive at once in a run: the allocator's on CUDA, else every storage's."""
        if prompt_BT.is_cuda:
            torch.cuda.reset_peak_memory_stats(prompt_BT.device)
            self.run(model, prompt_BT)
            return int(torch.cuda.max_memory_allocated(prompt_BT.device))
        with PeakTracker([*model.parameters(), *model.buffers(), prompt_BT]) as tracker:
            self.run(model, prompt_BT)
        return int(tracker.peak)

    def metric(
        self, task: str, name: str, values: Any, *, unit: str = "tokens/s", better: bool = True
    ) -> Metric:
        """The median of the repeats with the standard error of their mean."""
        count = len(values)
        return Metric(
            task=task,
            metric=name,
            value=float(statistics.median(values)),
            unit=unit,
            higher_is_better=better,
            stderr=float(statistics.stdev(values) / count**0.5) if count > 1 else None,
            n=count,
        )


def fixed(task: str, name: str, value: float, unit: str, *, better: bool = False) -> Metric:
    """A number that does not vary between runs."""
    return Metric(task=task, metric=name, value=float(value), unit=unit, higher_is_better=better)


def tensor_bytes(held: Any) -> int:
    """Bytes of all tensors in an object, its attributes and what they hold, each storage once."""
    storages: dict[int, int] = {}
    seen: set[int] = set()
    waiting = [held]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            continue
        seen.add(id(current))
        if isinstance(current, Tensor):
            storage = current.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(current, Mapping):
            waiting += current.values()
        elif isinstance(current, list | tuple):
            waiting += current
        elif hasattr(current, "__dict__"):
            waiting += vars(current).values()
    return sum(storages.values())


def weight_bytes(model: nn.Module) -> int:
    """Bytes of parameters and buffers as they are held, shared ones once."""
    held = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
    return sum(held.values())


def resident() -> int:
    """Most bytes of this process that were in memory at once, everything loaded included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _dtype(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)


def _finisher(tensor: Tensor) -> Callable[[], float]:
    """A clock that waits for the device."""

    def clock() -> float:
        if tensor.is_cuda:
            torch.cuda.synchronize(tensor.device)
        return time.perf_counter()

    return clock


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Efficiency]
