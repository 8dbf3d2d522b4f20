"""Prompts as the architecture reads them: plainly, as a prefix, or as an encoder's source."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from harness.axes.decoding import NO_VIRTUAL
from harness.data.template import IGNORED
from harness.errors import IncompatibleError
from harness.model import architecture_of

PROMPT_DOCUMENT = -2
"""Document of a prompt that the encoder reads, so that the decoder's positions begin after it."""


def conditioned(
    model: nn.Module,
    *,
    labels_BT: Tensor,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    document_ids: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> dict[str, Tensor]:
    """A model's inputs for rows of a prompt and an answer, so that training reads them as generation does.

    The prompt is what stands before the first label. A prefix decoder reads it in both directions. An
    encoder reads it as its source; the decoder sees nothing of it but its last token, or in its place the
    start token that an imported checkpoint states.

    Shapes: all B x T, padded right; labels shifted, IGNORED where nothing is predicted
    Raises: IncompatibleError for several conversations in a row, where there is a prefix or an encoder
    """
    given = {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "document_ids": document_ids,
        "position_ids": position_ids,
    }
    inputs = {name: value for name, value in given.items() if value is not None}
    architecture = architecture_of(model)
    if architecture is None or not (architecture.uses_prefix() or architecture.has_encoder()):
        return inputs
    if attention_mask is None:
        raise IncompatibleError(
            f"architecture={architecture.name} reads one prompt a sequence, but several are packed into one; "
            "use instruction_strategy=proportional or another that does not pack"
        )
    length_B = (labels_BT != IGNORED).long().argmax(dim=1) + 1
    if architecture.uses_prefix():
        return {**inputs, "prefix_length": length_B}
    column_T = torch.arange(input_ids.shape[1], device=input_ids.device)
    prompt_BT = (column_T < length_B[:, None]).long()
    answer_BT = (column_T >= length_B[:, None] - 1).long() * attention_mask
    start_id = decoder_start_id(model)
    if start_id is not None:
        inputs["input_ids"] = torch.where(column_T == length_B[:, None] - 1, start_id, input_ids)
    inputs |= {
        "attention_mask": answer_BT,
        "encoder_input_ids": input_ids,
        "encoder_attention_mask": prompt_BT,
    }
    if document_ids is not None:
        inputs["document_ids"] = torch.where(
            answer_BT.bool(), document_ids.to(answer_BT.device), PROMPT_DOCUMENT
        )
    return inputs


class Prompted(NamedTuple):
    """What a model reads of prompts before it continues them token by token."""

    ids_BT: Tensor
    mask_BT: Tensor
    inputs: dict[str, Tensor]
    """Given beside the tokens in every pass, one row a prompt: a prefix's length, or an encoder's reading."""


def prompted(model: nn.Module, input_BT: Tensor, mask_BT: Tensor) -> Prompted:
    """Prompts as a model's architecture reads them, for those who decode without transformers' generate.

    Shapes: input_BT, mask_BT padded on the left -> the same, or one start token where an encoder reads them
    Raises: IncompatibleError for virtual tokens, which transformers' generate alone puts before prompts
    """
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise IncompatibleError(f"decoding: {NO_VIRTUAL}")
    architecture = architecture_of(model)
    if architecture is None or not (architecture.uses_prefix() or architecture.has_encoder()):
        return Prompted(input_BT, mask_BT, {})
    if architecture.uses_prefix():
        return Prompted(input_BT, mask_BT, {"prefix_length": mask_BT.sum(dim=1)})
    inner: Any = getattr(model, "get_base_model", lambda: model)()
    start_id = decoder_start_id(inner)
    starts_B1 = input_BT[:, -1:] if start_id is None else torch.full_like(input_BT[:, -1:], start_id)
    read = {
        "encoder_hidden_states": inner.model.encode(input_BT, mask_BT),
        "encoder_attention_mask": mask_BT,
    }
    return Prompted(starts_B1, torch.ones_like(starts_B1), read)


def decoder_start_id(model: nn.Module) -> int | None:
    """The token that a decoder behind an encoder starts from; None where it is the source's last one."""
    found = getattr(getattr(model, "generation_config", None), "decoder_start_token_id", None)
    return None if found is None else int(found)
