"""A model that scores answers: a trained scalar head, or the likelihood of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.axes.instruction import Conversation, Role, Turn
from harness.data.template import IGNORED, Template
from harness.errors import IncompatibleError
from harness.model.artifact import Load, Loaded, load_model
from harness.model.conditioning import conditioned

if TYPE_CHECKING:
    from harness.store.artifacts import Artifact

HEAD = "score_head.safetensors"
ROWS = 64
"""Answers scored at once."""


class ModelScorer:
    """Scores answers with a model and, where there is one, its reward head.

    Shapes: the head maps D to 1 and reads the hidden state of the last answer token
    """

    def __init__(self, loaded: Loaded, head: nn.Linear | None = None) -> None:
        self.model, self.tokenizer, self.head = loaded.model, loaded.tokenizer, head
        self.template = Template(loaded.tokenizer)  # type: ignore[arg-type]

    def score(self, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Rewards by the trained head (B)."""
        if self.head is None:
            raise IncompatibleError("this model has no reward head; put the stage reward before align")
        return self._by_rows(prompts, answers, head=True)

    def log_probs(self, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Summed log-probability of each answer (B)."""
        return self._by_rows(prompts, answers, head=False)

    @torch.no_grad()
    def _by_rows(self, prompts: Sequence[str], answers: Sequence[str], *, head: bool) -> Tensor:
        device = next(self.model.parameters()).device
        found = []
        for start in range(0, len(prompts), ROWS):
            part = slice(start, start + ROWS)
            ids_BT, mask_BT, labels_BT = (x.to(device) for x in self._encode(prompts[part], answers[part]))
            inputs = conditioned(self.model, input_ids=ids_BT, attention_mask=mask_BT, labels_BT=labels_BT)
            out = self.model(**inputs, use_cache=False, output_hidden_states=head)
            if head:
                assert self.head is not None
                found.append(self.head(last_state(out.hidden_states[-1], mask_BT).float())[:, 0])
            else:
                tokens_BT = F.cross_entropy(
                    out.logits.flatten(0, 1).float(),
                    labels_BT.flatten(),
                    ignore_index=IGNORED,
                    reduction="none",
                )
                found.append(-tokens_BT.view(labels_BT.shape).sum(-1))
        return torch.cat(found).cpu()

    def _encode(self, prompts: Sequence[str], answers: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            turns = (Turn(role=Role.user, text=prompt), Turn(role=Role.assistant, text=answer))
            rows.append(self.template.encode(Conversation(id="", turns=turns, source="")))
        shape = (len(rows), max(len(ids) for ids, _ in rows))
        ids_BT = torch.full(shape, self.tokenizer.pad_token_id or 0)
        labels_BT = torch.full(shape, IGNORED)
        mask_BT = torch.zeros(shape, dtype=torch.long)
        for row, (ids_T, labels_T) in enumerate(rows):
            ids_BT[row, : len(ids_T)], mask_BT[row, : len(ids_T)] = torch.from_numpy(ids_T), 1
            labels_BT[row, : len(ids_T) - 1] = torch.from_numpy(labels_T[1:])
        return ids_BT, mask_BT, labels_BT


def last_state(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Hidden state of each row's last real token, rows padded right (B x D)."""
    last_B = mask_BT.sum(-1).long() - 1
    return hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B]


def save_head(head: nn.Linear, directory: Path) -> None:
    """Write the reward head beside its model."""
    from safetensors.torch import save_file

    save_file({"weight": head.weight.detach().cpu().contiguous()}, directory / HEAD)


def load_scorer(artifact: Artifact, load: Load, *, device: str = "cpu") -> ModelScorer:
    """The scorer of a reward artifact, or of a model artifact (likelihoods only)."""
    from safetensors.torch import load_file

    loaded = load_model(artifact, load, device=device)
    loaded.model.requires_grad_(False)
    file = artifact.path / HEAD
    if not file.exists():
        return ModelScorer(loaded)
    weight = load_file(file)["weight"]
    head = nn.Linear(weight.shape[1], 1, bias=False)
    head.weight = nn.Parameter(weight, requires_grad=False)
    return ModelScorer(loaded, head.to(device))
