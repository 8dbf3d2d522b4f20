"""A model run token by token with its cache, for strategies that transformers' generate does not have."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from harness import IncompatibleError, last_logits, prompted


class Stepper:
    """Holds the cache and what the last token yielded.

    Shapes: prompt_BT and mask_BT as the decoder reads the prompts, logits_BV float32 at the last position;
        hidden_BTD of every layer for the tokens of the last call
    State: cache, mask and outputs; `select` reorders all of them along the batch
    Raises: IncompatibleError where the model keeps no cache that can be reordered, or has virtual tokens
    """

    def __init__(self, model: nn.Module, input_BT: Tensor, mask_BT: Tensor, *, hidden: bool = False) -> None:
        self.model, self.hidden = model, hidden
        self.prompt_BT, self.mask_BT, self.inputs = prompted(model, input_BT, mask_BT)
        self.cache: Any = None
        self.logits_BV: Tensor
        self.layers: tuple[Tensor, ...]
        self._run(self.prompt_BT, (self.mask_BT.cumsum(-1) - 1).clamp(min=0))
        if not hasattr(self.cache, "batch_select_indices"):
            raise IncompatibleError(
                f"{type(model).__name__} keeps no cache that can be reordered; use decoding=sampling"
            )

    def feed(self, tokens_B: Tensor) -> None:
        """Append one token to every sequence."""
        self.mask_BT = torch.cat([self.mask_BT, self.mask_BT.new_ones(len(tokens_B), 1)], dim=1)
        self._run(tokens_B[:, None], self.mask_BT.sum(-1, keepdim=True) - 1)

    def select(self, rows_B: Tensor) -> None:
        """Keep the given sequences, in this order; one may occur several times."""
        self.cache.batch_select_indices(rows_B)
        self.mask_BT, self.logits_BV = self.mask_BT[rows_B], self.logits_BV[rows_B]
        self.layers = tuple(layer_BTD[rows_B] for layer_BTD in self.layers)
        self.inputs = {name: value[rows_B] for name, value in self.inputs.items()}

    def _run(self, input_BT: Tensor, positions_BT: Tensor) -> None:
        # Only the last token's logits are needed; those of a prompt would fill the memory.
        out = self.model(
            input_ids=input_BT,
            attention_mask=self.mask_BT,
            position_ids=positions_BT,
            past_key_values=self.cache,
            use_cache=True,
            output_hidden_states=self.hidden,
            **last_logits(self.model),
            **self.inputs,
        )
        self.cache, self.logits_BV = out.past_key_values, out.logits[:, -1].float()
        self.layers = tuple(out.hidden_states) if self.hidden else ()


@torch.inference_mode()
def step_through(
    steppers: tuple[Stepper, ...],
    choose: Callable[[], Tensor],
    *,
    max_new_tokens: int,
    ends: Sequence[int],
    pad: int,
) -> Tensor:
    """New tokens: what `choose` picks at every step is fed to all steppers, until all sequences have ended.

    Shapes: choose() -> B; result BS, padded on the right
    """
    new: list[Tensor] = []
    done_B: Tensor | None = None
    for index in range(max_new_tokens):
        tokens_B = choose()
        if done_B is not None:
            tokens_B = torch.where(done_B, pad, tokens_B)
        new.append(tokens_B)
        ended_B = torch.isin(tokens_B, torch.tensor(ends, dtype=tokens_B.dtype, device=tokens_B.device))
        done_B = ended_B if done_B is None else done_B | ended_B
        if bool(done_B.all()) or index + 1 == max_new_tokens:
            break
        for stepper in steppers:
            stepper.feed(tokens_B)
    return torch.stack(new, dim=1)
