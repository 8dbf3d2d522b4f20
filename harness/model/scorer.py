"""A model that scores answers: a trained scalar head, or the likelihood of an answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from harness.axes.instruction import Conversation, Prompt, Role, Turn, as_text, as_turns
from harness.data.template import IGNORED, Template
from harness.errors import IncompatibleError
from harness.model import config_file
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

    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Rewards by the trained head (B)."""
        if self.head is None:
            raise IncompatibleError(NO_HEAD)
        return self._by_rows(prompts, answers, head=True)

    def log_probs(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Summed log-probability of each answer (B)."""
        return self._by_rows(prompts, answers, head=False)

    @torch.no_grad()
    def _by_rows(self, prompts: Sequence[Prompt], answers: Sequence[str], *, head: bool) -> Tensor:
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

    def _encode(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> tuple[Tensor, Tensor, Tensor]:
        rows = []
        for prompt, answer in zip(prompts, answers, strict=True):
            asked = as_turns(prompt)
            conversation = Conversation(id="", turns=(*asked, _said(answer)), source="")
            rows.append(self.template.encode(conversation, learn_from=len(asked)))
        shape = (len(rows), max(len(ids) for ids, _ in rows))
        ids_BT = torch.full(shape, self.tokenizer.pad_token_id or 0)
        labels_BT = torch.full(shape, IGNORED)
        mask_BT = torch.zeros(shape, dtype=torch.long)
        for row, (ids_T, labels_T) in enumerate(rows):
            ids_BT[row, : len(ids_T)], mask_BT[row, : len(ids_T)] = torch.from_numpy(ids_T), 1
            labels_BT[row, : len(ids_T) - 1] = torch.from_numpy(labels_T[1:])
        return ids_BT, mask_BT, labels_BT


class ClassifierScorer:
    """Scores answers with a Hugging Face sequence-classification model.

    The prompt and answer are written by the model's own chat template, else as a pair of texts, as reward
    models without one were trained (OpenAssistant's DeBERTa, say).
    Shapes: the logit of the only label, or of `label` where there are several
    Raises: IncompatibleError where there are several labels and none is named
    """

    def __init__(self, model: nn.Module, tokenizer: Any, *, label: str = "") -> None:
        self.model, self.tokenizer = model.eval().requires_grad_(False), tokenizer
        names: dict[int, str] = dict(model.config.id2label)  # type: ignore[union-attr, arg-type]
        if len(names) > 1 and label not in names.values():
            raise IncompatibleError(
                f"the classifier has the labels {', '.join(names.values())}; name the one whose logit is the "
                "reward by reward.label"
            )
        self.place = next((place for place, name in names.items() if name == label), 0)

    @torch.no_grad()
    def score(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Logits of B answers."""
        found = [self._score_one(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        return torch.stack(found).cpu() if found else torch.zeros(0)

    def _score_one(self, prompt: Prompt, answer: str) -> Tensor:
        limit = {"truncation": True, "return_tensors": "pt"}
        if self.tokenizer.chat_template:
            turns = (*as_turns(prompt), _said(answer))
            messages = [{"role": turn.role.value, "content": turn.text} for turn in turns]
            text = self.tokenizer.apply_chat_template(messages, tokenize=False)
            inputs = self.tokenizer(text, add_special_tokens=False, **limit)
        else:
            inputs = self.tokenizer(as_text(prompt), answer, **limit)
        device = next(self.model.parameters()).device
        logit: Tensor = self.model(**inputs.to(device)).logits[0, self.place].float()
        return logit

    def log_probs(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Refused: a classifier writes nothing."""
        raise IncompatibleError("a sequence-classification model has no language head; use its score")


NO_HEAD = (
    "this model has no reward head; name a folder that the stage reward wrote or a Hugging Face "
    "sequence-classification model, or put the stage reward before align"
)


def is_classifier(directory: Path) -> bool:
    """Whether a directory holds a Hugging Face sequence-classification model."""
    there = (directory / config_file.NAME).is_file()
    stated = config_file.read(directory).get("architectures") if there else None
    return any(name.endswith("ForSequenceClassification") for name in stated or ())


def has_head(directory: Path) -> bool:
    """Whether a directory's model gives answers a score."""
    return (directory / HEAD).exists() or is_classifier(directory)


def _said(answer: str) -> Turn:
    return Turn(role=Role.assistant, text=answer)


def last_state(hidden_BTD: Tensor, mask_BT: Tensor) -> Tensor:
    """Hidden state of each row's last real token, rows padded right (B x D)."""
    last_B = mask_BT.sum(-1).long() - 1
    return hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B]


def save_head(head: nn.Linear, directory: Path) -> None:
    """Write the reward head beside its model."""
    from safetensors.torch import save_file

    save_file({"weight": head.weight.detach().cpu().contiguous()}, directory / HEAD)


def load_scorer(
    artifact: Artifact, load: Load, *, device: str = "cpu", label: str = ""
) -> ModelScorer | ClassifierScorer:
    """The scorer of a reward artifact or a sequence-classification model; of others, likelihoods only."""
    from safetensors.torch import load_file

    if is_classifier(artifact.path):
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(artifact.path).to(device)
        return ClassifierScorer(model, AutoTokenizer.from_pretrained(artifact.path), label=label)
    loaded = load_model(artifact, load, device=device)
    loaded.model.requires_grad_(False)
    file = artifact.path / HEAD
    if not file.exists():
        return ModelScorer(loaded)
    weight = load_file(file)["weight"]
    head = nn.Linear(weight.shape[1], 1, bias=False)
    head.weight = nn.Parameter(weight, requires_grad=False)
    return ModelScorer(loaded, head.to(device))
