"""Speculative decoding: a small draft model proposes tokens that the model accepts or corrects."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Decoding, Method, Problem, hookimpl, model_ref
from harness_plugins.decoding._stepping import special_ids


class Speculative(Decoding):
    """Samples exactly from the model's distribution while a draft model guesses several tokens ahead.

    Paper: Leviathan et al. 2023, arXiv:2211.17192, algorithm 1
    Differs: one sequence at a time, as transformers' assisted generation runs it
    """

    name = "speculative"

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        draft: str = model_ref()
        """A smaller model with the same tokenizer that proposes tokens."""
        num_draft_tokens: int = 4
        """Tokens proposed before the model is asked."""
        temperature: float = 1.0
        """Divides the logits of both models; 0 takes the likeliest token."""

        def __post_init__(self) -> None:
            if self.num_draft_tokens < 1:
                raise ConfigError(f"decoding.num_draft_tokens={self.num_draft_tokens} must be at least 1")
            if self.temperature < 0:
                raise ConfigError(f"decoding.temperature={self.temperature} must not be negative")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: Any, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        if not config.draft:
            yield Problem(where="decoding.draft", message=NO_DRAFT)

    def options(self) -> dict[str, Any]:
        if self.config.temperature == 0:
            return {"do_sample": False}
        return {"do_sample": True, "top_k": 0, "temperature": float(self.config.temperature)}

    @torch.inference_mode()
    def generate(
        self, model: nn.Module, input_BT: Tensor, mask_BT: Tensor, *, max_new_tokens: int, seed: int
    ) -> Tensor:
        if "draft" not in self.models:
            raise ConfigError(f"decoding.draft: {NO_DRAFT}")
        draft: Any = self.models["draft"]
        draft.generation_config.num_assistant_tokens = self.config.num_draft_tokens
        draft.generation_config.num_assistant_tokens_schedule = "constant"
        draft.generation_config.assistant_confidence_threshold = 0.0
        _, pad = special_ids(model)
        new_BS = input_BT.new_full((len(input_BT), max_new_tokens), pad)
        devices = [input_BT.device] if input_BT.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            for row in range(len(input_BT)):
                ids_1T = input_BT[row : row + 1, mask_BT[row].bool()]
                out_1T = model.generate(  # type: ignore[operator]
                    input_ids=ids_1T,
                    attention_mask=torch.ones_like(ids_1T),
                    assistant_model=draft,
                    max_new_tokens=max_new_tokens,
                    **self.options(),
                )
                new_S = out_1T[0, ids_1T.shape[1] :]
                new_BS[row, : len(new_S)] = new_S
        return new_BS


NO_DRAFT = (
    "speculative decoding needs a draft model; name one with the same tokenizer, e.g. "
    "decoding.draft='cell:model.num_layers=1'"
)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Speculative]
