"""A tiny model, source and place to work in, on which suites and tests run the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from harness.axes import TRAINING_AXES
from harness.method import Choice
from harness.registry.known import registry
from harness.rng import Purpose, stream_seed
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.meeting import Meeting
from harness.training.methods import Methods
from harness.training.settings import Budget, Settings, Unit

VOCAB = 32


class Output(dict[str, Any]):
    """A model's output, read by key or by attribute."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class TinyModel(nn.Module):
    """Embedding, dropout, one hidden layer, head."""

    def __init__(self, *, seed: int = 0, dropout: float = 0.0, dim: int = 16) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.embed_tokens = nn.Embedding(VOCAB, dim)
            self.hidden = nn.Linear(dim, 4 * dim)
            self.out = nn.Linear(4 * dim, dim)
            self.norm = nn.LayerNorm(dim)
            self.lm_head = nn.Linear(dim, VOCAB, bias=False)
            self.dropout = nn.Dropout(dropout)

    def forward(self, input_ids: torch.Tensor, use_cache: bool = False, **_: Any) -> Output:
        x_BTD = self.dropout(self.embed_tokens(input_ids))
        x_BTD = x_BTD + self.out(torch.relu(self.hidden(self.norm(x_BTD))))
        return Output(logits=self.lm_head(x_BTD))

    def get_input_embeddings(self) -> nn.Module:
        return self.embed_tokens


class TinySource:
    """Counting sequences with noise; rows have different numbers of labels."""

    num_samples = 64

    def __init__(self, *, length: int = 12, seed: int = 0, bad: set[int] | None = None) -> None:
        self.length, self.seed, self.position = length, seed, 0
        self.bad = bad or set()
        self.drawn: list[int] = []

    def next(self, size: int) -> dict[str, torch.Tensor]:
        rows = [self._row(self.position + i) for i in range(size)]
        self.drawn.extend(range(self.position, self.position + size))
        self.position += size
        ids = torch.stack([row for row, _ in rows])
        labels = ids[:, 1:].clone()
        for i, (_, learned) in enumerate(rows):
            labels[i, learned:] = -100
        return {
            "input_ids": ids[:, :-1],
            "labels_BT": labels,
            "num_bytes": torch.full((size,), 3.0 * self.length),
        }

    def _row(self, index: int) -> tuple[torch.Tensor, int]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + index)
        start, step = torch.randint(0, VOCAB, (2,), generator=generator).tolist()
        ids = (start + (1 + step % 2) * torch.arange(self.length + 1)) % VOCAB
        if index in self.bad:
            ids = torch.randint(0, VOCAB, (self.length + 1,), generator=generator)
        return ids, 1 + index % self.length

    def state_dict(self) -> dict[str, int]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.position = state["position"]


@dataclass
class FakeRun:
    """What the loop needs of a stage's work."""

    checkpoints: Path
    stage: str = "pretrain"
    choices: dict[str, Choice | tuple[Choice, ...]] = field(default_factory=dict)
    device: str = "cpu"
    seed: int = 0
    seen: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    meeting: Meeting | None = None

    def on_step(self, step: int, facts: dict[str, float]) -> None:
        self.seen.append((step, facts))

    def stream(self, purpose: Purpose) -> int:
        return stream_seed(seed=self.seed, stage=self.stage, purpose=purpose)


def methods(**replaced: Any) -> Methods:
    """The default method of each training axis and no stabilizer, unless replaced."""
    known = registry()
    chosen: dict[str, Any] = {
        axis: known.get(axis, str(known.axes[axis].default))()
        for axis in TRAINING_AXES
        if axis != "stabilizer"
    }
    return Methods(**{**chosen, "stabilizers": (), **replaced})


def run(
    folder: Path, model: nn.Module | None = None, *, source: Any = None, loss: Any = None, **options: Any
) -> tuple[nn.Module, dict[str, Any]]:
    """Train a tiny model with these settings; `methods=` takes what `methods` returns."""
    model = TinyModel() if model is None else model
    chosen = options.pop("methods", None) or methods()
    steps = Budget(unit=Unit.steps, amount=options.pop("steps", 12))
    base = {"learning_rate": 1e-2, "budget": steps, "batch_size": 8, "sequence_length": 12, "log_every": 4}
    settings = Settings(**{**base, "checkpoint_every": None, **options})
    facts = train(
        model,
        source or TinySource(),
        loss or language_modeling_loss,
        work=FakeRun(folder),
        settings=settings,
        methods=chosen,
    )
    return model, facts
