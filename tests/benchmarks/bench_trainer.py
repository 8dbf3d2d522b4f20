"""Training against what a user would pick, transformers' Trainer: same weights, same batches, equal losses.

`make bench` prints the ratios; processor seconds of steps, taken in turn in one run, start-up and compilation
left out. HARNESS_SMOLLM2 names the model of the LoRA comparison; `make smollm2` fetches it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from bench import median_ratio, show
from torch import nn
from torch.utils.data import SequentialSampler

from harness.axes import MODEL_AXES
from harness.compose import compose, publish
from harness.conformance.tiny import FakeRun, methods
from harness.model.checkpoint import export_checkpoint
from harness.registry.known import registry
from harness.training.contract import Batch
from harness.training.loop import train
from harness.training.losses import conversation_loss, language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

pytestmark = pytest.mark.slow

IGNORED, VOCABULARY, WARM = -100, 4096, 1
"""Steps of a run that are not timed: the first has allocations, and compilation, in it."""
ROUNDS = 2
RATE = 1e-3
SMALL = {"dim": 256, "num_layers": 4, "num_heads": 4, "head_dim": 64, "ffn_dim": 688}
MEDIUM = {"dim": 512, "num_layers": 9, "num_heads": 8, "head_dim": 64, "ffn_dim": 1376}
SMOLLM2 = Path(os.environ.get("HARNESS_SMOLLM2", ".harness/models/SmolLM2-135M-Instruct.Q4_1.gguf"))

Run = Callable[[], tuple[list[float], list[float]]]
"""Trains from the same start; returns (processor seconds of each timed step, losses of all steps)."""


class Clock:
    """Processor seconds between ends of steps."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def tick(self) -> None:
        self.ends.append(time.process_time())

    def steps(self) -> list[float]:
        return [b - a for a, b in zip(self.ends[WARM - 1 :], self.ends[WARM:], strict=False)]


class Rows:
    """Fixed batches, one after another, as the loop draws them."""

    num_samples = None

    def __init__(self, batches: list[Batch]) -> None:
        self.batches, self.place = batches, 0

    def next(self, size: int) -> Batch:
        found = dict(self.batches[self.place])
        assert len(found["input_ids"]) == size
        self.place += 1
        labels = found.pop("labels")
        # The loop's labels stand at the position that predicts them.
        return found | {"labels_BT": nn.functional.pad(labels[:, 1:], (0, 1), value=IGNORED)}

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class Ticking(FakeRun):
    """Notes when a step has ended, and its loss."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.clock, self.losses = Clock(), []

    def on_step(self, step: int, facts: dict[str, float]) -> None:
        self.clock.tick()
        self.losses.append(facts["loss"])


def ours(
    make: Callable[[], nn.Module],
    batches: list[Batch],
    folder: Path,
    *,
    precision: str = "fp32",
    compiled: bool = False,
    loss: Any = language_modeling_loss,
) -> tuple[list[float], list[float]]:
    """The loop as stages run it."""
    known = registry()
    constant = known.get("schedule", "constant")
    work = Ticking(folder)
    size, length = batches[0]["input_ids"].shape
    train(
        make(),
        Rows(batches),
        loss,
        work=work,
        settings=Settings(
            learning_rate=RATE,
            budget=Budget(unit=Unit.steps, amount=len(batches)),
            batch_size=size,
            sequence_length=length,
            log_every=1,
            checkpoint_every=None,
            compile=compiled,
        ),
        methods=methods(
            stabilizers=(known.get("stabilizer", "clip_norm")(),),
            schedule=constant(constant.Config(warmup_share=0.0)),  # type: ignore[call-arg]
            precision=known.get("precision", precision)(),
        ),
    )
    return work.clock.steps(), work.losses


def theirs(
    make: Callable[[], nn.Module], batches: list[Batch], folder: Path, *, precision: str = "fp32"
) -> tuple[list[float], list[float]]:
    """transformers' Trainer with its defaults, on the same rows in the same order."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    clock, losses = Clock(), []

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            clock.tick()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

    class InOrder(Trainer):  # type: ignore[misc]
        def _get_train_sampler(self, *args: Any) -> Any:
            return SequentialSampler(self.train_dataset)

    rows = [
        {name: value[row] for name, value in batch.items()}
        for batch in batches
        for row in range(len(batch["input_ids"]))
    ]
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=len(batches[0]["input_ids"]),
        max_steps=len(batches),
        learning_rate=RATE,
        lr_scheduler_type="constant",
        weight_decay=0.1,
        adam_beta2=0.95,
        bf16=precision == "bf16",
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        dataloader_pin_memory=False,
        disable_tqdm=True,
    )
    InOrder(model=make(), args=arguments, train_dataset=rows, callbacks=[Watch()]).train()
    return clock.steps(), losses


def compared(title: str, runs: dict[str, Run], tokens: int) -> dict[str, list[float]]:
    """Steps of every run, taken in turn, printed as tokens a processor second; losses are held together."""
    found: dict[str, list[float]] = {name: [] for name in runs}
    curves: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            seconds, curves[name] = run()
            found[name].append(statistics.median(seconds))
    first = next(iter(runs))
    rows = [
        (
            name,
            f"{tokens / statistics.median(seconds):,.0f}",
            median_ratio(found, first, name),
            curves[name][-1],
        )
        for name, seconds in found.items()
    ]
    show(title, ("training", "tokens/s", f"times {first}", "last loss"), rows, raw=found)
    for name, losses in curves.items():
        assert losses == pytest.approx(curves[first], rel=0.01), name
    return found


def windows(steps: int, size: int, length: int) -> list[Batch]:
    """Sequences that count up, with noise: something to learn, and no document ends."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(steps):
        start = torch.randint(0, VOCABULARY, (size, 1), generator=generator)
        noise = torch.randint(0, 4, (size, length), generator=generator)
        ids = (start + torch.arange(length) + noise) % VOCABULARY
        batches.append({"input_ids": ids, "labels": ids.clone()})
    return batches


def models(shape: dict[str, int], folder: Path, length: int) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """Makers of the same weights: in our transformer, and in transformers' Llama."""
    import harness.model

    publish()
    options = [f"model.{name}={value}" for name, value in shape.items()]
    cell = compose([*options, f"model.max_length={length}", f"tokenizer.vocab_size={VOCABULARY}"])
    spec = cell.spec()
    assert spec is not None
    choices: Any = {axis: cell.choice(axis) for axis in MODEL_AXES}
    make = partial(harness.model.build, spec, choices, seed=0)
    export_checkpoint(make(), folder, model_type="llama")

    def llama() -> Any:
        from transformers import LlamaForCausalLM

        return LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)

    return make, llama


@pytest.mark.parametrize(
    ("shape", "size", "length", "steps"),
    [(SMALL, 16, 256, 4), (MEDIUM, 4, 1024, 2)],
    ids=["4M", "30M"],
)
def test_training_is_faster_than_the_trainer(
    shape: dict[str, int], size: int, length: int, steps: int, tmp_path: Path
) -> None:
    mine, llama = models(shape, tmp_path / "llama", length)
    batches = windows(steps, size, length)
    scratch = tmp_path / "scratch"
    runs: dict[str, Run] = {
        "Trainer fp32": lambda: theirs(llama, batches, scratch),
        "Trainer bf16": lambda: theirs(llama, batches, scratch, precision="bf16"),
        "harness fp32": lambda: ours(mine, batches, scratch),
        "harness bf16": lambda: ours(mine, batches, scratch, precision="bf16"),
    }
    if os.environ.get("HARNESS_BENCH_COMPILED", "1") == "1":  # minutes on a busy machine
        compiled = partial(ours, mine, batches, scratch, precision="bf16", compiled=True)
        runs["harness bf16, compiled"] = compiled
    found = compared(f"Training of {llama().num_parameters():,} weights, T {length}", runs, size * length)
    for precision in ("fp32", "bf16"):
        assert median_ratio(found, f"Trainer {precision}", f"harness {precision}") > 1.0


def answers(vocabulary: int, steps: int) -> list[Batch]:
    """Four conversations of up to 256 tokens, padded to the longest, of which the second half is learned."""
    generator = torch.Generator().manual_seed(0)
    batches = []
    for _ in range(steps):
        lengths = torch.randint(96, 257, (4,), generator=generator)
        ids = torch.randint(100, vocabulary, (4, int(lengths.max())), generator=generator)
        place = torch.arange(ids.shape[1])
        real = place < lengths[:, None]
        learned = real & (place >= lengths[:, None] // 2)
        labels = ids.where(learned, IGNORED)
        batches.append({"input_ids": ids, "labels": labels, "attention_mask": real.long()})
    return batches


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_lora_is_faster_than_with_peft_and_the_trainer(precision: str, tmp_path: Path) -> None:
    if not SMOLLM2.exists():
        pytest.skip(f"{SMOLLM2} is not there: make smollm2, or set HARNESS_SMOLLM2")
    from peft import LoraConfig, get_peft_model

    from harness.model.artifact import load_pretrained
    from harness.model.gguf import dequantized

    folder = dequantized(SMOLLM2, root=tmp_path)
    method = registry().get("peft", "lora")

    def library() -> Any:
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return get_peft_model(
            model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )

    def mine() -> Any:
        torch.manual_seed(0)
        model = load_pretrained(str(folder)).model
        return method(method.Config(rank=8, alpha=16.0)).apply(model)  # type: ignore[call-arg,attr-defined]

    batches = answers(49152, 3)
    scratch = tmp_path / "scratch"
    runs: dict[str, Run] = {
        "peft + Trainer": lambda: theirs(library, batches, scratch, precision=precision),
        "harness": lambda: ours(mine, batches, scratch, precision=precision, loss=conversation_loss),
    }
    tokens = sum(batch["attention_mask"].sum().item() for batch in batches) / len(batches)
    found = compared(f"LoRA on SmolLM2-135M, {precision}", runs, int(tokens))
    assert median_ratio(found, "peft + Trainer", "harness") > 1.0
