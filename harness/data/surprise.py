"""How surprised a causal model is by answers or texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from harness.data.template import IGNORED
from harness.data.tokenization import encode_plain, hidden_bytes

Row = tuple[np.ndarray, np.ndarray]
"""Token ids and unshifted labels (T each); labels outside what is scored are IGNORED."""


def mean_surprise(model: Any, rows: Sequence[Row], *, batch_size: int = 16) -> np.ndarray:
    """Mean negative log-likelihood of each row's labelled tokens under a Hugging Face causal model.

    Shapes: R rows -> R
    Units: nats a token; NaN for a row without labelled tokens after its first
    """
    means_R = np.full(len(rows), np.nan)
    device = next(model.parameters()).device
    order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        width = max(len(rows[index][0]) for index in chosen)
        ids_BT = torch.zeros(len(chosen), width, dtype=torch.int64)
        labels_BT = torch.full((len(chosen), width), IGNORED)
        mask_BT = torch.zeros(len(chosen), width, dtype=torch.int64)
        for place, index in enumerate(chosen):
            ids_T, labels_T = rows[index]
            ids_BT[place, : len(ids_T)] = torch.from_numpy(ids_T)
            labels_BT[place, : len(ids_T)] = torch.from_numpy(labels_T)
            mask_BT[place, : len(ids_T)] = 1
        with torch.no_grad():
            logits_BTV = model(input_ids=ids_BT.to(device), attention_mask=mask_BT.to(device)).logits
        loss_BT = torch.nn.functional.cross_entropy(
            logits_BTV[:, :-1].float().transpose(1, 2),
            labels_BT[:, 1:].to(device),
            ignore_index=IGNORED,
            reduction="none",
        )
        count_B = (labels_BT[:, 1:] != IGNORED).sum(-1)
        total_B = loss_BT.sum(-1).cpu()
        for place, index in enumerate(chosen):
            if count_B[place]:
                means_R[index] = float(total_B[place] / count_B[place])
    return means_R


def answer_surprise(model: Any, tokenizer: Any, conversations: Sequence[Any]) -> np.ndarray:
    """Mean surprise of each conversation's answers, in the tokenizer's template.

    Shapes: R conversations -> R
    Units: nats a token
    """
    from harness.data.template import Template

    template = Template(tokenizer)
    return mean_surprise(model, [template.encode(conversation) for conversation in conversations])


def text_surprise(model: Any, tokenizer: Any, text: str, *, window: int = 256) -> float:
    """Surprise of a text, read in windows that do not see each other.

    Units: bits a UTF-8 byte, 8 for each that no token says (escape coding)
    """
    read = encode_plain(tokenizer, text)
    ids = np.array(read["input_ids"], dtype=np.int64)
    pieces = [ids[i : i + window] for i in range(0, len(ids), window)]
    rows = [(piece, piece.copy()) for piece in pieces if len(piece) > 1]
    if not rows:
        return float("nan")
    counts_R = np.array([len(piece) - 1 for piece, _ in rows])
    nats_per_token = float((mean_surprise(model, rows) * counts_R).sum() / counts_R.sum())
    bits = nats_per_token * len(ids) / np.log(2) + 8 * hidden_bytes(tokenizer, text, read)
    return float(bits / len(text.encode()))
