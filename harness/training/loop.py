"""The one training loop: every stage that trains calls `train` with a batch source and a loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from harness.errors import DivergedError
from harness.rng import Purpose
from harness.training import checkpoint, measure
from harness.training.contract import BatchSource, Loss, Run
from harness.training.curve import Curve
from harness.training.gradients import Gradients
from harness.training.meter import Meter
from harness.training.methods import Methods
from harness.training.settings import Settings


def train(
    model: nn.Module,
    source: BatchSource,
    loss: Loss,
    *,
    work: Run,
    settings: Settings,
    methods: Methods | None = None,
) -> dict[str, Any]:
    """Train a model in place until its budget is spent; returns measured facts.

    A run that was killed continues from its last checkpoint, bit for bit.
    Raises: DivergedError, ConfigError
    """
    return Trainer(model, source, loss, work=work, settings=settings, methods=methods).run()


class Trainer:
    """One run of the loop.

    State: all of it is in checkpoints: weights, optimizer, data position, random streams, counts
    """

    def __init__(
        self,
        model: nn.Module,
        source: BatchSource,
        loss: Loss,
        *,
        work: Run,
        settings: Settings,
        methods: Methods | None = None,
    ) -> None:
        self.source, self.work, self.settings = source, work, settings
        self.methods = methods = methods or Methods.build(work.choices)
        self.device = torch.device(work.device)
        model.to(self.device).train()
        for method in methods.actors(model, "modify_model"):
            model = method.modify_model(model)
        if settings.recompute:
            model.gradient_checkpointing_enable()  # type: ignore[operator]
        flops = measure.flops_per_token(model, settings.sequence_length)
        self.model = methods.parallelism.wrap(model)
        self.optimizer = methods.parallelism.optimizer(methods.optimizer, self.model, settings.learning_rate)
        self.peak_rates = [group["lr"] for group in self.optimizer.param_groups]
        self.scaler = methods.precision.scaler(self.device.type)
        self.gradients = Gradients(
            self.model,
            loss,
            methods,
            device=self.device,
            micro_batch_size=settings.micro_batch_size,
            scaler=self.scaler,
        )
        self.on_gradients = methods.actors(self.model, "on_gradients")
        self.meter = Meter.of(source, settings.budget, flops_per_token=flops)
        self.curve = Curve(log_every=settings.log_every, device=self.device)
        self.peak_memory = 0
        self.rollbacks: list[dict[str, Any]] = []

    def run(self) -> dict[str, Any]:
        """Train to the end of the budget."""
        torch.manual_seed(self.work.stream(Purpose.dropout) + self.methods.parallelism.data_rank()[0])
        self._resume()
        self.meter.restart_clock()
        while self.meter.spent() < 1:
            self._measured_step()
            step = int(self.meter.counts["steps"])
            saves = self.settings.checkpoint_every and step % self.settings.checkpoint_every == 0
            if saves or step % self.settings.log_every == 0 or self.meter.spent() >= 1:
                self._look(step)
            if saves and self.meter.spent() < 1:
                self._save(step)
        self.methods.optimizer.finish(self.optimizer)
        return self._facts()

    def _step(self) -> None:
        """One update from one global batch."""
        settings, step = self.settings, int(self.meter.counts["steps"])
        before = self.meter.spent()
        size = self.methods.batch_schedule.batch_size(settings.batch_size, min(before, 1.0))
        batch = self.source.next(size)
        self.meter.add(batch, size)
        batch.pop("num_bytes", None)
        # Read in the middle of the step, so that neither the first nor the last update has rate 0.
        progress = min((before + self.meter.spent()) / 2, 1.0)
        total_steps = max(step + 1, round((step + 0.5) / progress))
        factor = self.methods.schedule.factor(progress, step, total_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        result = self.gradients.compute(batch, size)
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        facts = {**result.facts, "learning_rate": settings.learning_rate * factor}
        for method in self.on_gradients:
            facts.update(method.on_gradients(self.model, step))
        if self.scaler:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.gradients.zero()
        self.curve.add(result.loss, facts)

    def _measured_step(self) -> None:
        # The second step has optimizer state and is as large as any; tracing every step would cost time.
        if self.device.type == "cpu" and self.meter.counts["steps"] == 1 and not self.peak_memory:
            with measure.PeakTracker(self._tensors()) as tracker:
                self._step()
            self.peak_memory = tracker.peak
        else:
            self._step()

    def _look(self, step: int) -> None:
        """A logging step: the only place where the host reads from the device."""
        interval = self.curve.read(step)
        for index, value in enumerate(interval.losses):
            if not value == value or value in (float("inf"), float("-inf")):
                raise DivergedError(step - len(interval.losses) + index, f"the loss is {value}")
        factor = self.settings.spike_factor
        if factor is not None and self.curve.has_diverged(factor):
            raise DivergedError(
                step, f"the loss {interval.mean:.4g} exceeds its start and {factor:g} times its lowest"
            )
        spent, seconds = self.meter.spent(), self.meter.seconds()
        self.work.on_step(
            step,
            {
                **interval.facts,
                "loss": interval.mean,
                "progress": min(spent, 1.0),
                "tokens_per_second": self.meter.counts["tokens"] / seconds,
                "seconds_left": seconds * max(1 / spent - 1, 0.0),
            },
        )

    def _save(self, step: int) -> None:
        state = self.methods.parallelism.state(self.model, self.optimizer)
        state |= {
            "source": self.source.state_dict(),
            "meter": self.meter.state_dict(),
            "curve": self.curve.state_dict(),
            "rng": checkpoint.rng_state(self.device),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "stabilizers": [stabilizer.state_dict() for stabilizer in self.methods.stabilizers],
            "micro_batch_size": self.gradients.micro_batch_size,
            "peak_memory": self.peak_memory,
            "rollbacks": self.rollbacks,
        }
        checkpoint.write(self.work.checkpoints, step, state)

    def _resume(self) -> None:
        written = checkpoint.steps(self.work.checkpoints)
        if written:
            self._restore(checkpoint.read(self.work.checkpoints, written[-1]))

    def _restore(self, state: dict[str, Any]) -> None:
        self.methods.parallelism.load_state(self.model, self.optimizer, state)
        self.source.load_state_dict(state["source"])
        self.meter.load_state_dict(state["meter"])
        self.curve.load_state_dict(state["curve"])
        checkpoint.restore_rng(state["rng"], self.device)
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        for stabilizer, saved in zip(self.methods.stabilizers, state["stabilizers"], strict=True):
            stabilizer.load_state_dict(saved)
        self.gradients.micro_batch_size = state["micro_batch_size"]
        self.peak_memory, self.rollbacks = state["peak_memory"], state["rollbacks"]

    def _tensors(self) -> list[Any]:
        states = [value for state in self.optimizer.state.values() for value in state.values()]
        return [*self.model.parameters(), *self.model.buffers(), *states]

    def _facts(self) -> dict[str, Any]:
        if self.device.type == "cuda":
            self.peak_memory = torch.cuda.max_memory_allocated(self.device)
        facts: dict[str, Any] = self.meter.facts()
        dtype = self.methods.precision.compute_dtype()
        peak, source = measure.peak_flops(self.device, dtype)
        _, processes = self.methods.parallelism.data_rank()
        return facts | {
            "tokens_per_second": facts["tokens"] / facts["seconds"],
            "mfu": facts["flops"] / facts["seconds"] / peak / processes,
            "peak_flops": peak,
            "peak_flops_source": source,
            "flop_convention": measure.FLOP_CONVENTION,
            "peak_memory": self.peak_memory,
            "resident_memory": measure.resident_bytes(),
            "micro_batch_size": self.gradients.micro_batch_size,
            "budget": {"unit": self.settings.budget.unit.value, "amount": self.settings.budget.amount},
            "batch_size": self.settings.batch_size,
            "sequence_length": self.settings.sequence_length,
            "device": self.device.type,
            "dtype": str(dtype).removeprefix("torch."),
            "first_loss": self.curve.first,
            "final_loss": self.curve.last,
            "loss_curve": self.curve.points(),
            "rollbacks": self.rollbacks,
        }
