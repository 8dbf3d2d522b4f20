"""Hugging Face's generate, told all that it would otherwise infer: masks, the prefix, the source, the start.

Shapes: B batch, T prompt tokens, S source tokens, D model dim
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin

from harness.errors import ConfigError


def one_mask(*, attention_mask: Tensor | None = None, **unused: Any) -> Tensor | None:
    """The mask of tokens as it is: our model makes its own of pairs, for caches of fixed size too."""
    return attention_mask


class PromptedGeneration(GenerationMixin):  # type: ignore[misc]
    """The prompt is the prefix of a prefix decoder and the source of an encoder."""

    create_masks_for_generate = staticmethod(one_mask)

    @torch.no_grad()
    def generate(
        self, inputs: Tensor | None = None, generation_config: GenerationConfig | None = None, **kwargs: Any
    ) -> Any:
        """Hugging Face's generate, whose arguments it takes.

        Shapes: inputs BT -> prompt and continuation, whatever the architecture; with `inputs_embeds` the
        continuation alone
        Raises: ConfigError where a decoder's start or a cached prefix is not known
        """
        prompt = inputs if inputs is not None else kwargs.pop("input_ids", None)
        settings = generation_config or self.generation_config
        architecture = self.model.architecture
        if architecture.uses_prefix() and kwargs.get("prefix_length") is None:
            kwargs |= self._prefix(prompt, settings, kwargs)
        if architecture.has_encoder():
            return self._from_source(prompt, settings, generation_config, kwargs)
        return super().generate(prompt, generation_config, **kwargs)

    def _prefix(self, prompt: Tensor | None, settings: Any, kwargs: dict[str, Any]) -> dict[str, Tensor]:
        """The mask and the prefix of a prompt, given as tokens or as embeddings."""
        cache = kwargs.get("past_key_values")
        if cache is not None and int(cache.get_seq_length()):
            raise ConfigError(
                "generate continues from a prefix decoder's cache; give prefix_length, the prefix that the "
                "cache was made with"
            )
        read = kwargs.get("inputs_embeds", prompt)
        if read is None:
            return {}
        mask = kwargs.get("attention_mask")
        mask = prompt_mask(read, settings, kwargs) if mask is None else mask
        return {"attention_mask": mask, "prefix_length": mask.sum(dim=1)}

    def _from_source(self, prompt: Tensor | None, settings: Any, config: Any, kwargs: dict[str, Any]) -> Any:
        """Encode the source once and decode from the start token."""
        answers = kwargs.pop("decoder_input_ids", None)
        mask = kwargs.pop("encoder_attention_mask", None)
        outputs = kwargs.pop("encoder_outputs", None)
        read = kwargs.pop("encoder_hidden_states", None) if outputs is None else outputs[0]
        if outputs is not None and mask is None:  # as transformers has it, of what was read
            mask = kwargs.pop("attention_mask", None)
        source, embeds = kwargs.pop("encoder_input_ids", None), None
        is_source = read is None and source is None
        if is_source:
            source, embeds = prompt, kwargs.pop("inputs_embeds", None)
            mask = kwargs.pop("attention_mask", None) if mask is None else mask
        elif answers is None:
            answers = prompt
        if read is None:
            if source is not None and embeds is not None:
                raise ConfigError("generate takes a source as input_ids or as inputs_embeds, not both")
            given = source if embeds is None else embeds
            if given is None:
                raise ConfigError(
                    "generate needs a source; give input_ids, inputs_embeds or encoder_input_ids"
                )
            if mask is None and self._stated_start(settings, kwargs) is None:
                # A decoder that continues its source needs to know where that ends; with a start token of
                # its own, as T5 has, transformers masks only what it is told to.
                mask = prompt_mask(given, settings, kwargs)
            read = self.model.encode(None if embeds is not None else source, mask, inputs_embeds=embeds)
        start = answers
        if start is None:
            start = self._start(source if embeds is None else None, mask, read, settings, kwargs)
        # Never inferred from the tokens: a start token may well be the padding token.
        decoder_mask = kwargs.pop("decoder_attention_mask", None)
        decoder_mask = kwargs.pop("attention_mask", None) if decoder_mask is None else decoder_mask
        kwargs["attention_mask"] = torch.ones_like(start) if decoder_mask is None else decoder_mask
        out = super().generate(
            start, config, encoder_hidden_states=read, encoder_attention_mask=mask, **kwargs
        )
        if answers is not None:
            return out
        return _continued(out, source if is_source and embeds is None else None)

    @staticmethod
    def _stated_start(settings: Any, kwargs: dict[str, Any]) -> Any:
        stated = kwargs.get("decoder_start_token_id")
        return getattr(settings, "decoder_start_token_id", None) if stated is None else stated

    def _start(
        self,
        source: Tensor | None,
        mask: Tensor | None,
        read_BSD: Tensor,
        settings: Any,
        kwargs: dict[str, Any],
    ) -> Tensor:
        """The decoder's first token: the stated one, else (trained here) the source's last real one."""
        stated = self._stated_start(settings, kwargs)
        kwargs.pop("decoder_start_token_id", None)
        if stated is not None:
            return torch.full((len(read_BSD), 1), int(stated), device=read_BSD.device)
        if source is None:
            raise ConfigError(
                "a decoder starts from its source's last token, which embeddings do not tell; give "
                "decoder_start_token_id or decoder_input_ids"
            )
        if mask is None:
            return source[:, -1:]
        column_S = torch.arange(source.shape[1], device=source.device)
        last_B1 = (mask.long() * column_S).argmax(dim=1, keepdim=True)
        return torch.gather(source, 1, last_B1)


def prompt_mask(prompt: Tensor, settings: Any, kwargs: dict[str, Any]) -> Tensor:
    """Which tokens of a prompt are real, as Hugging Face infers it: padding is known unless it ends texts.

    Shapes: BT or BTD -> BT
    """
    real = torch.ones(prompt.shape[:2], dtype=torch.long, device=prompt.device)
    pad, end = (kwargs.get(name, getattr(settings, name, None)) for name in ("pad_token_id", "eos_token_id"))
    ends = end if isinstance(end, list | tuple) else [end]
    if prompt.dim() == 3 or pad is None or pad in ends:
        return real
    known: torch.Tensor = prompt != pad
    return known.long()


def _continued(out: Any, source: Tensor | None) -> Any:
    """What was generated, without its start token, after the source's tokens."""
    rows = out if isinstance(out, Tensor) else out.sequences
    new = rows[:, 1:]
    if source is not None:
        new = torch.cat((source.repeat_interleave(len(rows) // len(source), dim=0), new), dim=1)
    if isinstance(out, Tensor):
        return new
    out.sequences = new
    return out
