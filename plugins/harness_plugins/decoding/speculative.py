"""Speculative decoding: a small draft model proposes tokens that the model accepts or corrects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import (
    ConfigError,
    Decoding,
    IncompatibleError,
    Method,
    Problem,
    check_vocabulary,
    hookimpl,
    model_ref,
    not_all_kept,
    prompted,
    quantile,
    special_ids,
    uniforms,
)
from harness_plugins.decoding._drafting import Reader


class Speculative(Decoding):
    """Samples exactly from the model's distribution while a draft model guesses several tokens ahead.

    All rows of a batch are drafted and verified together; each draws from a stream of its own.

    Paper: Leviathan et al. 2023, arXiv:2211.17192, algorithm 1
    State: `accepted` and `proposed` count the draft's tokens of the last call
    Raises: IncompatibleError for a draft of another vocabulary, or a cache that cannot forget tokens
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
        if kept := not_all_kept(cell, meta_model):
            yield Problem(
                where="decoding",
                message=f"decoding=speculative takes tokens back, which the cache of {kept} cannot forget; "
                "use attention=full (attention.cache=contiguous) and no context method that chooses scores",
            )
        architecture = cell.choice("architecture")
        method: Any = getattr(architecture, "method", None)
        if method is not None and (method.uses_prefix() or method.has_encoder()):
            yield Problem(where="decoding", message=f"decoding=speculative: {NO_CONDITION}")

    @torch.inference_mode()
    def generate(
        self,
        model: nn.Module,
        input_BT: Tensor,
        mask_BT: Tensor,
        *,
        max_new_tokens: int,
        seeds: Sequence[int],
    ) -> Tensor:
        if "draft" not in self.models:
            raise ConfigError(f"decoding.draft: {NO_DRAFT}")
        check_vocabulary(model, self.models["draft"], where="decoding.draft")
        for each in (model, self.models["draft"]):
            if prompted(each, input_BT, mask_BT).inputs:
                raise IncompatibleError(f"decoding=speculative: {NO_CONDITION}")
        target, draft = (Reader(each, rows=len(input_BT)) for each in (model, self.models["draft"]))
        if not (target.forgets and draft.forgets):
            raise IncompatibleError(
                "decoding=speculative takes tokens back, and the cache of one of the two models cannot "
                "forget them; use attention=full (attention.cache=contiguous) and no windowed context method"
            )
        ends, pad = special_ids(model)
        prompts = [ids_T[real_T].tolist() for ids_T, real_T in zip(input_BT, mask_BT.bool(), strict=True)]
        self.accepted = self.proposed = 0
        texts = [list(prompt) for prompt in prompts]
        going, rounds = list(range(len(texts))), 0
        if max(map(len, texts)) > 1:
            target.read([text[:-1] for text in texts])
        if max(map(len, texts)) > 2:
            draft.read([text[:-2] for text in texts])
        while going:
            now = [texts[row] for row in going]
            found = self.round(target, draft, now, [seeds[row] for row in going], rounds)
            rounds += 1
            for text, new, row in zip(now, found, going, strict=True):
                text += until(new, ends)[: len(prompts[row]) + max_new_tokens - len(text)]
            on = [
                place
                for place, row in enumerate(going)
                if len(texts[row]) < len(prompts[row]) + max_new_tokens and texts[row][-1] not in ends
            ]
            going = [going[place] for place in on]
            if going:
                target.keep(on, [len(texts[row]) - 1 for row in going])
                draft.keep(on, [max(0, len(texts[row]) - 2) for row in going])
        new_BS = input_BT.new_full((len(texts), max_new_tokens), pad)
        for row, text in enumerate(texts):
            new = text[len(prompts[row]) :]
            new_BS[row, : len(new)] = torch.tensor(new, device=input_BT.device)
        return new_BS[:, : max(len(text) - len(prompt) for text, prompt in zip(texts, prompts, strict=True))]

    def round(
        self, target: Reader, draft: Reader, texts: list[list[int]], seeds: Sequence[int], rounds: int
    ) -> list[list[int]]:
        """The tokens that every row gains: those accepted and one of the model's own (algorithm 1)."""
        K, rows = self.config.num_draft_tokens, len(texts)
        # Of a round's 2 K + 1 draws, K are the draft's, K test them, and one is the model's own.
        uniform_BK = torch.stack(
            [uniforms(seeds, [(2 * K + 1) * rounds + k] * rows) for k in range(2 * K + 1)], dim=1
        ).to(draft.device)
        guesses: list[Tensor] = []
        drafts: list[Tensor] = []
        logits_B1V = draft.read([text[-2:] for text in texts])
        for k in range(K):
            drafts.append(self.probabilities(logits_B1V[:, -1]))
            guesses.append(quantile(drafts[-1], uniform_BK[:, k]))
            if k + 1 < K:
                logits_B1V = draft.read([[token] for token in guesses[-1].tolist()])
        guess_BK, q_BKV = torch.stack(guesses, dim=1), torch.stack(drafts, dim=1)
        asked = [[text[-1], *new] for text, new in zip(texts, guess_BK.tolist(), strict=True)]
        p_BKV = self.probabilities(target.read(asked, keep=K + 1))
        p_guess_BK = p_BKV[:, :K].gather(-1, guess_BK[..., None])[..., 0]
        q_guess_BK = q_BKV.gather(-1, guess_BK[..., None])[..., 0]
        accepts_BK = uniform_BK[:, K : 2 * K] * q_guess_BK < p_guess_BK
        count_B = accepts_BK.long().cumprod(dim=1).sum(dim=1)
        row_B = torch.arange(rows, device=count_B.device)
        # After a refusal the model draws from max(0, p - q), after none from p.
        refused_BV = (p_BKV[row_B, count_B] - q_BKV[row_B, count_B.clamp(max=K - 1)]).clamp(min=0)
        whole_B1 = ((count_B == K) | (refused_BV.sum(-1) <= 0))[:, None]
        own_B = quantile(torch.where(whole_B1, p_BKV[row_B, count_B], refused_BV), uniform_BK[:, 2 * K])
        self.proposed += K * rows
        self.accepted += int(count_B.sum())
        return [
            [*new[:count], own]
            for new, count, own in zip(guess_BK.tolist(), count_B.tolist(), own_B.tolist(), strict=True)
        ]

    def probabilities(self, logits_BKV: Tensor) -> Tensor:
        """What is drawn from: softmax at the temperature, all of it on the likeliest token at 0."""
        if self.config.temperature == 0:
            likeliest = logits_BKV.argmax(-1, keepdim=True)
            return torch.zeros_like(logits_BKV).scatter_(-1, likeliest, 1.0)
        return (logits_BKV / self.config.temperature).softmax(-1)


def until(tokens: list[int], ends: Sequence[int]) -> list[int]:
    """The tokens up to the first end, which is kept."""
    for place, token in enumerate(tokens):
        if token in ends:
            return tokens[: place + 1]
    return tokens


NO_CONDITION = (
    "it reads prompts as they stand, and a model with a prefix or an encoder does not; use "
    "architecture=causal_decoder, or decoding=greedy, sampling or beam"
)
NO_DRAFT = (
    "speculative decoding needs a draft model; name one with the same tokenizer, e.g. "
    "decoding.draft='cell:model.num_layers=1'"
)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Speculative]
