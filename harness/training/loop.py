"""The one training loop: every stage that trains calls `train` with a batch source and a loss."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from harness.axes.optimizer import RATE
from harness.axes.stabilizer import Verdict
from harness.errors import ConfigError, DivergedError
from harness.rng import Purpose
from harness.training import checkpoint, distribution, measure, shards
from harness.training.compilation import Stopwatch, compiled_blocks
from harness.training.contract import COUNTS, Batch, BatchSource, Loss, Run, next_rows
from harness.training.curve import Curve
from harness.training.distribution import OnStep
from harness.training.gradients import Gradients, leave_overflow_to_scaler
from harness.training.meter import Meter
from harness.training.methods import Methods, acts
from harness.training.refusals import refused
from harness.training.settings import Settings
from harness.training.untrained import refuse_collapse, refuse_overflows


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
    methods = methods or Methods.build(work.choices)

    def main(device: str, on_step: OnStep) -> tuple[dict[str, Any], dict[str, Any]]:
        trainer = Trainer(
            model, source, loss, work=work, settings=settings, methods=methods, device=device, on_step=on_step
        )
        facts = trainer.run()
        return facts, {"model": methods.parallelism.full_state(trainer.model), "source": source.state_dict()}

    parallelism = methods.parallelism.config
    if distribution.inside():
        return main(distribution.join(work.device), work.on_step)[0]
    if parallelism.world_size == 1:
        return main(work.device, work.on_step)[0]
    if parallelism.num_nodes > 1 and work.meeting is None:
        raise ConfigError(
            f"parallelism.num_nodes={parallelism.num_nodes}: nobody has placed this stage on several nodes; "
            "run the sweep with hydra/launcher=submitit_slurm"
        )
    facts, state = distribution.launch(
        main,
        num_processes=parallelism.num_processes,
        device=work.device,
        on_step=work.on_step,
        meeting=work.meeting if parallelism.num_nodes > 1 else None,
    )
    model.load_state_dict(state["model"], strict=False)
    source.load_state_dict(state["source"])  # what it met, it tells here
    return facts


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
        methods: Methods,
        device: str,
        on_step: OnStep,
    ) -> None:
        self.source, self.work, self.settings = source, work, settings
        self.methods, self.on_step, self.device = methods, on_step, torch.device(device)
        model.to(self.device).train()
        for method in methods.actors(model, "modify_model"):
            model = method.modify_model(model)
        if settings.recompute:
            model.gradient_checkpointing_enable()  # type: ignore[operator]
        for option, message in refused(
            settings,
            processes=methods.parallelism.config.world_size,
            parallelism=type(methods.parallelism),
            stabilizers=map(type, methods.stabilizers),
        ):
            raise ConfigError(f"{option}: {message}")
        flops = measure.flops_per_token(model, settings.sequence_length)
        self.trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.model = methods.parallelism.wrap(model)
        methods.optimizer.rates = methods.actors(self.model, "rate")
        self.optimizer = methods.parallelism.optimizer(methods.optimizer, self.model, settings.learning_rate)
        leave_overflow_to_scaler(self.optimizer)
        self.peak_rates = [group["lr"] * group.get(RATE, 1.0) for group in self.optimizer.param_groups]
        self.scaler = methods.precision.scaler(self.device.type)
        self.gradients = Gradients(
            self.model,
            loss,
            methods,
            device=self.device,
            micro_batch_size=settings.micro_batch_size,
            scaler=self.scaler,
        )
        self.weights = methods.precision.stored(self.gradients.parameters)
        self.on_steps = methods.actors(self.model, "on_step")
        self.on_gradients = methods.actors(self.model, "on_gradients")
        self.meter = Meter.of(source, settings.budget, flops_per_token=flops)
        self.curve = Curve(log_every=settings.log_every, device=self.device)
        self.peak_memory = self.padded_tokens = self.source_tokens = self.scored_tokens = 0
        self.rolls_back = any(acts(type(method), "verdict") for method in methods.stabilizers)
        self.rollbacks: list[dict[str, Any]] = []
        self.compilation: Stopwatch | None = None

    def run(self) -> dict[str, Any]:
        """Train to the end of the budget."""
        with compiled_blocks(self.model) if self.settings.compile else nullcontext() as self.compilation:
            return self._run()

    def _run(self) -> dict[str, Any]:
        torch.manual_seed(self.work.stream(Purpose.dropout) + self.methods.parallelism.data_rank()[0])
        self._resume()
        if self.rolls_back and not self.meter.counts["steps"]:
            self._save(0)
        self.meter.restart_clock()
        while self.meter.spent() < 1:
            self._step()
            step = int(self.meter.counts["steps"])
            saves = self.settings.checkpoint_every and step % self.settings.checkpoint_every == 0
            looks = saves or step % self.settings.log_every == 0 or self.meter.spent() >= 1
            if looks and self._look(step) and saves and self.meter.spent() < 1:
                self._save(step)
        self._refuse_untrained()
        with self.weights.whole():
            self.methods.optimizer.finish(self.optimizer)
        facts = self._facts()
        self.weights.release()
        return facts

    def _step(self) -> None:
        """One update from one global batch, of which this process has its share."""
        settings, step = self.settings, int(self.meter.counts["steps"])
        before = self.meter.spent()
        size = self.methods.batch_schedule.batch_size(settings.batch_size, min(before, 1.0))
        batch = next_rows(self.source, size, self.gradients.rows(size))
        self.meter.add(batch, size)
        for name in COUNTS:
            batch.pop(name, None)
        # Read in the middle of the step, so that neither the first nor the last update has rate 0.
        progress = min((before + self.meter.spent()) / 2, 1.0)
        total_steps = max(step + 1, round((step + 0.5) / progress))
        for method in self.on_steps:
            method.on_step(step, total_steps)
        factor = self.methods.schedule.factor(progress, step, total_steps)
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * factor
        with self._traced(batch, size):
            self._update(batch, size, {"learning_rate": settings.learning_rate * factor})

    def _update(self, batch: Batch, size: int, facts: dict[str, Any]) -> None:
        """Gradients of a global batch and the optimizer's step."""
        result = self.gradients.compute(batch, size)
        facts |= result.facts
        with self.weights.whole():
            if self.scaler:
                self.scaler.unscale_(self.optimizer)
            for method in self.on_gradients:
                facts |= method.on_gradients(self.model, int(self.meter.counts["steps"]) - 1)
            if self.scaler:
                self.scaler.step(self.optimizer)
                self.scaler.update()
            else:
                self.optimizer.step()
            self.gradients.zero()
        self.curve.add(result.loss, facts)

    def _micro(self, size: int) -> int:
        """How many of this process's sequences a micro-batch has."""
        share = size // self.methods.parallelism.data_rank()[1]
        return min(self.gradients.micro_batch_size or share, share)

    def _padded_tokens(self, batch: Batch, size: int) -> int:
        """Positions of this process's largest micro-batch."""
        return measure.padded_tokens(batch, sequences=self._micro(size))

    @contextmanager
    def _traced(self, batch: Batch, size: int) -> Iterator[None]:
        """Measure peak memory in a step with optimizer state that is larger than any before.

        Tracing every step would cost time; a CUDA allocator keeps its own books.
        """
        if not self._states() or self._padded_tokens(batch, size) <= self.padded_tokens:
            yield
            return
        if self.device.type == "cpu":
            with measure.PeakTracker(self._tensors()) as tracker:
                yield
            self.peak_memory = max(self.peak_memory, tracker.peak)
        else:
            yield
        micro = self._micro(size)  # a micro-batch that did not fit was halved
        self.padded_tokens = measure.padded_tokens(batch, sequences=micro)
        self.source_tokens = measure.source_tokens(batch, sequences=micro)
        self.scored_tokens = measure.scored_tokens(batch, sequences=micro)

    def _look(self, step: int) -> bool:
        """A logging step: the only place where the host reads from the device. False after a rollback."""
        interval = self.curve.read(step)
        for index, value in enumerate(interval.losses, start=step - len(interval.losses)):
            for stabilizer in self.methods.stabilizers:
                if stabilizer.verdict(index, value) is Verdict.rollback:
                    self._roll_back(index, value)
                    return False
            if not math.isfinite(value):
                raise DivergedError(index, f"the loss is {value}")
        factor = self.settings.spike_factor
        if factor is not None and self.curve.has_diverged(factor):
            raise DivergedError(
                step, f"the loss {interval.mean:.4g} exceeds its start and {factor:g} times its lowest"
            )
        spent, seconds = self.meter.spent(), self.meter.seconds()
        self.on_step(
            step,
            {
                **interval.facts,
                "loss": interval.mean,
                "progress": min(spent, 1.0),
                "tokens_per_second": self.meter.counts["tokens"] / seconds,
                "seconds_left": seconds * max(1 / spent - 1, 0.0),
            },
        )
        return True

    def _refuse_untrained(self) -> None:
        """Refuse a model that has come to the end of its budget and learned nothing."""
        steps, settings = int(self.meter.counts["steps"]), self.settings
        size = getattr(getattr(self.model, "config", None), "vocab_size", None)
        if settings.spike_factor is not None and size:
            refuse_collapse(self.curve, vocab_size=size, steps=steps, learning_rate=settings.learning_rate)
        if self.scaler:
            refuse_overflows(self.scaler, steps=steps)

    def _roll_back(self, step: int, loss: float) -> None:
        """Continue from the last checkpoint before a step, with data that was not seen yet."""
        folder, position = self.work.checkpoints, self.source.state_dict()
        before = [written for written in checkpoint.steps(folder) if written <= step]
        if not before:
            raise DivergedError(step, f"the loss is {loss:.4g} and no checkpoint lies before it")
        state, now = checkpoint.read(folder, before[-1]), self.meter.state_dict()
        skipped = now["sequences"] - state["meter"]["sequences"]
        kept = [stabilizer.state_dict() for stabilizer in self.methods.stabilizers]
        rollbacks = [
            *self.rollbacks,
            {
                "spike_step": step,
                "loss": loss,
                "restored_step": before[-1],
                "skipped_sequences": int(skipped),
                "skipped_from": state["source"],
                "skipped_to": position,
            },
        ]
        state |= {"source": position, "stabilizers": kept, "rollbacks": rollbacks}
        state["meter"]["seconds"] = now["seconds"]
        self._restore(state)
        if checkpoint.is_first():
            checkpoint.drop_after(folder, before[-1])
        self._save(before[-1])
        self.on_step(before[-1], {"rollback_from_step": step, "skipped_sequences": skipped})

    def _save(self, step: int) -> None:
        parallelism, folder = self.methods.parallelism, self.work.checkpoints
        with self.weights.whole():
            state = shards.state(parallelism, self.model, self.optimizer, folder=folder, step=step)
            self._write(step, state)

    def _write(self, step: int, state: dict[str, Any]) -> None:
        state |= {
            "source": self.source.state_dict(),
            "meter": self.meter.state_dict(),
            "curve": self.curve.state_dict(),
            "rng": checkpoint.gathered(checkpoint.rng_state(self.device)),
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "stabilizers": [stabilizer.state_dict() for stabilizer in self.methods.stabilizers],
            "others": [method.training_state() for method in self.methods.others],
            "micro_batch_size": self.gradients.micro_batch_size,
            "peak_memory": self.peak_memory,
            "padded_tokens": self.padded_tokens,
            "source_tokens": self.source_tokens,
            "scored_tokens": self.scored_tokens,
            "rollbacks": self.rollbacks,
        }
        # Sharing the checkpoint's folder, processes let one of them write.
        if checkpoint.is_first():
            checkpoint.write(self.work.checkpoints, step, state)

    def _resume(self) -> None:
        # Another node may not see the newest file yet: all take the step that rank 0 sees.
        folder = self.work.checkpoints
        written = checkpoint.gathered(checkpoint.last(folder) if checkpoint.is_first() else None)[0]
        if written is not None:
            self._restore(checkpoint.read(folder, written))

    def _restore(self, state: dict[str, Any]) -> None:
        parallelism, folder = self.methods.parallelism, self.work.checkpoints
        with self.weights.whole():
            shards.load_state(parallelism, self.model, self.optimizer, state, folder=folder)
        self.source.load_state_dict(state["source"])
        self.meter.load_state_dict(state["meter"])
        self.curve.load_state_dict(state["curve"])
        if len(state["rng"]) == checkpoint.num_processes():
            checkpoint.restore_rng(state["rng"][checkpoint.rank()], self.device)
        if self.scaler:
            self.scaler.load_state_dict(state["scaler"])
        for stabilizer, saved in zip(self.methods.stabilizers, state["stabilizers"], strict=True):
            stabilizer.load_state_dict(saved)
        for method, saved in zip(self.methods.others, state["others"], strict=True):
            method.load_training_state(saved)
        self.gradients.micro_batch_size = state["micro_batch_size"]
        self.peak_memory, self.padded_tokens = state["peak_memory"], state["padded_tokens"]
        self.source_tokens, self.scored_tokens = state["source_tokens"], state["scored_tokens"]
        self.rollbacks = state["rollbacks"]

    def _tensors(self) -> list[Any]:
        return [
            *self.model.parameters(),
            *self.model.buffers(),
            *self._states(),
            *self.weights.tensors(),
        ]

    def _states(self) -> list[Any]:
        """Tensors of the optimizer that this process keeps."""
        own = self.methods.parallelism.own(self.optimizer)
        return [value for state in own.state.values() for value in state.values()]

    def _facts(self) -> dict[str, Any]:
        if self.device.type == "cuda":
            self.peak_memory = torch.cuda.max_memory_allocated(self.device)
        facts: dict[str, Any] = self.meter.facts()
        dtype = self.methods.precision.compute_dtype()
        peak, source = measure.peak_flops(self.device, dtype)
        _, processes = self.methods.parallelism.data_rank()
        if self.compilation is not None:
            facts |= {
                "compile_seconds": self.compilation.seconds,
                "compiled_graphs": self.compilation.graphs,
            }
        if self.scaler:
            facts["skipped_steps"] = self.scaler.skipped_steps
        return facts | {
            "tokens_per_second": facts["tokens"] / facts["seconds"],
            "mfu": facts["flops"] / facts["seconds"] / peak / processes,
            "peak_flops": peak,
            "peak_flops_source": source,
            "flop_convention": measure.FLOP_CONVENTION,
            "trainable_parameters": self.trainable,
            "optimizer_memory": measure.num_bytes(self._states()),
            "peak_memory": self.peak_memory,
            "padded_tokens": self.padded_tokens,
            "source_tokens": self.source_tokens,
            "scored_tokens": self.scored_tokens,
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
