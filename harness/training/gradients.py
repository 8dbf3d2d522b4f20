"""Gradients of one global batch: micro-batches, processes, and the exact average over all items."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.errors import ConfigError
from harness.method import Method
from harness.ops.gradients import multiply
from harness.ops.loss_scaler import LossScaler
from harness.training.contract import LEARNED, Batch, Loss
from harness.training.losses import ON_LEARNED, labels_of, learned_positions
from harness.training.methods import Methods

ON_HOST = ("document_ids",)
"""What a model reads where it lies, as it decides which kernels run; on a device each forward would wait."""


class BatchLoss(NamedTuple):
    """What the global batch gave; tensors stay on the device.

    Shapes: scalars; facts are averages over the batch's items
    """

    loss: Tensor
    count: Tensor  # type: ignore[assignment]
    facts: dict[str, Tensor]


def leave_overflow_to_scaler(optimizer: torch.optim.Optimizer) -> None:
    """Let a loss scaler skip the steps of every optimizer but torch's own.

    A fused optimizer of torch looks at `found_inf` in its kernel and says so; what inherits from it says so
    too, although its own step looks at nothing.
    """
    if type(optimizer).__module__.partition(".")[0] != "torch":
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]


class Gradients:
    """Computes gradients of (sum of totals) / (global count), whatever the accumulation.

    State: the micro-batch that fits; it only shrinks
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        methods: Methods,
        *,
        device: torch.device,
        micro_batch_size: int | None,
        scaler: LossScaler | None,
    ) -> None:
        self.model, self.loss, self.methods, self.device = model, loss, methods, device
        self.micro_batch_size = micro_batch_size
        self.scaler = scaler
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.with_terms: list[Method] = methods.actors(model, "loss_terms")
        self.outputs: list[Mapping[str, Any]] = []
        self.divisor: float | None = None
        if methods.parallelism.splits_batches():
            self._compute_in_format(model)

    def rows(self, size: int) -> slice:
        """This process's sequences of a global batch.

        Raises: ConfigError where the batch cannot be shared
        """
        rank, processes = self.methods.parallelism.data_rank()
        if size % processes:
            raise ConfigError(
                f"batch_size={size} must be a multiple of the {processes} processes that share it"
            )
        share = size // processes
        return slice(rank * share, (rank + 1) * share)

    def compute(self, local: Batch, size: int) -> BatchLoss:
        """Leave the gradients of a global batch on the model, of which `local` is this process's share.

        Raises: OutOfMemoryError where one sequence does not fit
        """
        _, processes = self.methods.parallelism.data_rank()
        share = size // processes
        micro = min(self.micro_batch_size or share, share)
        while True:
            try:
                return self._accumulate(local, share, micro, processes)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or micro == 1 or processes > 1:
                    raise
            # Outside the handler, where the traceback no longer holds the tensors that did not fit.
            micro = self.micro_batch_size = (micro + 1) // 2
            self.zero()
            self.outputs.clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def zero(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _accumulate(self, batch: Batch, share: int, micro: int, processes: int) -> BatchLoss:
        starts = range(0, share, micro)
        alone = len(starts) == 1 and processes == 1 and not self.methods.parallelism.splits_batches()
        parts = [self._part(batch, slice(start, start + micro)) for start in starts]
        # A constant divisor keeps magnitudes sane until the global count is known.
        self.divisor = None if alone else share * processes
        found = self.methods.parallelism.accumulate(self.model, parts, self.one)
        sums = {name: sum((each[name] for each in found[1:]), found[0][name]) for name in found[0]}
        if processes > 1:
            sums = _sum_over_processes(sums, self.methods.parallelism.data_group())
        count = sums.pop("count").clamp(min=1)
        if not alone:
            # Processes hold averages over `processes`; the divisor above was share * processes.
            multiply(self.parameters, share * processes * processes / count.double())
        averages = {name: value / count for name, value in sums.items()}
        return BatchLoss(averages.pop("total"), count, averages)

    def _part(self, batch: Batch, rows: slice) -> Batch:
        """A micro-batch on the device; what is learned is counted here, where nobody waits for a device."""
        part = {name: value[rows] for name, value in batch.items()}
        if self.loss in ON_LEARNED and not self.methods.parallelism.splits_batches():
            learned_M = learned_positions(part["labels_BT"])
            part |= {} if learned_M is None else {LEARNED: learned_M}
        return {
            name: value if name in ON_HOST else to_device(value, self.device) for name, value in part.items()
        }

    def one(self, model: nn.Module, part: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss to go backward from, and the sums, of one micro-batch."""
        with self.methods.precision.autocast(self.device.type):
            with self._watched(model):
                total, count, facts = self.loss(model, part)
            total = total + self._terms(part, count)
        scaled = total / (count.clamp(min=1) if self.divisor is None else self.divisor)
        sums = {"total": total, "count": count, **facts}
        return (
            self.scaler.scale(scaled) if self.scaler else scaled,
            {name: value.detach() for name, value in sums.items()},
        )

    def _compute_in_format(self, model: nn.Module) -> None:
        """Have a model that a schedule calls itself, away from the loss, compute in the chosen format too."""
        plain, autocast = model.forward, self.methods.precision.autocast

        def forward(*args: Any, **kwargs: Any) -> Any:
            with autocast(self.device.type):
                return plain(*args, **kwargs)

        model.forward = forward

    @contextmanager
    def _watched(self, model: nn.Module) -> Iterator[None]:
        """Note what a model answers: that of a pipeline's last process is one that stands for all of them."""
        if not self.with_terms:
            yield
            return
        handle = model.register_forward_hook(lambda module, args, output: self.outputs.append(output))
        try:
            yield
        finally:
            handle.remove()

    def _seen(self, output: Mapping[str, Any], part: Batch) -> Batch:
        """The micro-batch with the labels of the positions whose logits there are."""
        if LEARNED not in part:
            return part
        plain = {name: value for name, value in part.items() if name != LEARNED}
        return {**plain, "labels_BT": labels_of(output["logits"], part)}

    def _terms(self, part: Batch, count: Tensor) -> Tensor | float:
        outputs, self.outputs = self.outputs, []
        terms = [
            term.value
            for method in self.with_terms
            for output in outputs
            for term in method.loss_terms(output, self._seen(output, part))
        ]
        return sum(terms) / len(outputs) * count if terms else 0.0


def to_device(value: Tensor, device: torch.device) -> Tensor:
    """A batch's tensor where the model is, without waiting for the copy."""
    if value.device == device or device.type == "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was not enough, on any device."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _sum_over_processes(sums: dict[str, Tensor], group: Any) -> dict[str, Tensor]:
    names = sorted(sums)
    stacked = torch.stack([sums[name].double() for name in names])
    dist.all_reduce(stacked, group=group)
    return dict(zip(names, stacked.unbind(), strict=True))
