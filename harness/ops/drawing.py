"""How the next token is chosen from logits: transformers' processors, and a random stream for every row.

Shapes: B rows, T tokens so far, V vocabulary
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

Processor = Callable[[Tensor, Tensor], Tensor]
"""(tokens so far BT, scores BV) -> scores BV, as transformers' logits processors are."""

_GOLDEN = 0x9E3779B97F4A7C15


def uniforms(seeds: Sequence[int], draws: Sequence[int]) -> Tensor:
    """One number in [0, 1) for each (seed, draw), a function of these two alone.

    Source: SplitMix64 (Steele et al. 2014, "Fast splittable pseudorandom number generators")
    Shapes: B seeds and B counts of earlier draws -> B, float64
    """
    state = np.asarray(seeds, dtype=np.uint64)
    with np.errstate(over="ignore"):
        state = state + (np.asarray(draws, dtype=np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    state = state ^ (state >> np.uint64(31))
    return torch.from_numpy((state >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def pick(scores_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token at a quantile of softmax(scores): inverse transform sampling.

    Shapes: scores_BV (-inf excludes a token), uniform_B in [0, 1) -> B
    Error: sums in float64
    """
    return quantile(scores_BV.double().softmax(-1), uniform_B)


def quantile(weights_BV: Tensor, uniform_B: Tensor) -> Tensor:
    """The token at which the running sum of weights passes a share of their total; never one of weight 0.

    Shapes: weights_BV float64, not all of them 0 in a row, uniform_B in [0, 1) -> B
    """
    below_BV = weights_BV.cumsum(-1)
    wanted_B1 = uniform_B.to(below_BV)[:, None] * below_BV[:, -1:]
    return torch.searchsorted(below_BV, wanted_B1, right=True)[:, 0].clamp_(max=weights_BV.shape[-1] - 1)


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A strategy that chooses token after token from the model's logits."""

    history: Sequence[Processor] = ()
    """Change scores by what was said; they are shown a row without its padding."""
    cuts: Sequence[Processor] = ()
    """Change a distribution before a draw."""
    draws: bool = False
    """Whether a token is drawn; else the likeliest is taken."""

    def choose(
        self, rows: Sequence[Sequence[int]], logits_BV: Tensor, seeds: Sequence[int], draws: Sequence[int]
    ) -> Tensor:
        """The next token of every row, given its tokens so far, its stream, and how often it drew before."""
        scores_BV = logits_BV.float()
        if self.history:
            scores_BV = torch.cat(
                [
                    apply(self.history, torch.tensor([list(row)], device=scores_BV.device), scores_1V)
                    for row, scores_1V in zip(rows, scores_BV.split(1), strict=True)
                ]
            )
        if not self.draws:
            return scores_BV.argmax(-1)
        unread_B1 = torch.zeros(len(scores_BV), 1, dtype=torch.long, device=scores_BV.device)
        return pick(apply(self.cuts, unread_B1, scores_BV), uniforms(seeds, draws))


def apply(processors: Sequence[Processor], ids_BT: Tensor, scores_BV: Tensor) -> Tensor:
    """Scores after all processors, in order."""
    for processor in processors:
        scores_BV = processor(ids_BT, scores_BV)
    return scores_BV


_HISTORY = {
    "repetition_penalty": (1.0, "RepetitionPenaltyLogitsProcessor", "penalty"),
    "no_repeat_ngram_size": (0, "NoRepeatNGramLogitsProcessor", "ngram_size"),
}
_CUTS = {  # in the order of transformers' generate
    "temperature": (1.0, "TemperatureLogitsWarper", "temperature"),
    "top_h": (None, "TopHLogitsWarper", "top_h"),
    "top_k": (0, "TopKLogitsWarper", "top_k"),
    "top_p": (1.0, "TopPLogitsWarper", "top_p"),
    "min_p": (0.0, "MinPLogitsWarper", "min_p"),
    "typical_p": (1.0, "TypicalLogitsWarper", "mass"),
    "epsilon_cutoff": (0.0, "EpsilonLogitsWarper", "epsilon"),
    "eta_cutoff": (0.0, "EtaLogitsWarper", "epsilon"),
}
"""Option of generate -> (value that changes nothing, transformers' processor, its argument)."""

SAMPLING = frozenset(_CUTS)
"""Options that mean something where tokens are drawn."""


def rule_of(options: Mapping[str, Any]) -> Rule | None:
    """The rule that these options of transformers' `generate` state; None where they ask for a search."""
    known = {"do_sample", "num_beams", "use_cache", *_HISTORY, *_CUTS}
    if not options.keys() <= known or options.get("num_beams", 1) != 1:
        return None
    draws = bool(options.get("do_sample", False))
    return Rule(
        history=list(_processors(_HISTORY, options)),
        cuts=list(_processors(_CUTS, options)) if draws else (),
        draws=draws,
    )


def _processors(table: Mapping[str, tuple[Any, str, str]], options: Mapping[str, Any]) -> Iterator[Processor]:
    from transformers.generation import logits_process

    for option, (neutral, name, argument) in table.items():
        value = options.get(option)
        if value is not None and value != neutral:
            yield getattr(logits_process, name)(**{argument: value})


class Draw:
    """A logits processor that leaves one token: lets transformers' generate draw from a stream for each row.

    State: the number of tokens drawn so far; one instance serves one call of generate
    """

    def __init__(self, rule: Rule, seeds: Sequence[int]) -> None:
        self.rule, self.seeds, self.step = rule, list(seeds), 0

    def __call__(self, ids_BT: Tensor, scores_BV: Tensor) -> Tensor:
        chosen_B = self.rule.choose(ids_BT.tolist(), scores_BV, self.seeds, [self.step] * len(scores_BV))
        self.step += 1
        only_BV = torch.full_like(scores_BV, float("-inf"))
        return only_BV.scatter(1, chosen_B[:, None], 0.0)


def special_ids(model: Any) -> tuple[tuple[int, ...], int]:
    """All tokens that end a sequence by a model's generation config, and the one that pads."""
    config = model.generation_config
    stated = config.eos_token_id
    ends = () if stated is None else tuple(stated) if isinstance(stated, list | tuple) else (int(stated),)
    pad = config.pad_token_id
    return ends, int(pad) if pad is not None else (ends[0] if ends else 0)


@contextmanager
def only_stops(*models: Any) -> Iterator[None]:
    """What a checkpoint says of generation is its special tokens; all other options are the method's.

    transformers' generate takes every option that a call leaves open from the model's generation config.
    """
    from transformers import GenerationConfig

    # A wrapper of PEFT's hands its own config to the model inside.
    inside = [getattr(model, "get_base_model", lambda model=model: model)() for model in models]
    holders = list({id(holder): holder for holder in (*models, *inside)}.values())
    kept = [holder.generation_config for holder in holders]
    names = ("eos_token_id", "pad_token_id", "bos_token_id", "decoder_start_token_id")
    for holder, config in zip(holders, kept, strict=True):
        holder.generation_config = GenerationConfig(**{name: getattr(config, name, None) for name in names})
    try:
        yield
    finally:
        for holder, config in zip(holders, kept, strict=True):
            holder.generation_config = config
