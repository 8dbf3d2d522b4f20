"""Diverse beam search: groups of beams, each punished for tokens that earlier groups chose."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Decoding, Method, hookimpl, signed, special_ids
from harness_plugins.decoding._stepping import Stepper


class DiverseBeam(Decoding):
    """Beam search in groups; a group's scores lose `diversity` for each earlier group's use of a token.

    Paper: Vijayakumar et al. 2016, arXiv:1610.02424, algorithm 1 (Hamming diversity)
    Differs: returns the best of all groups, as transformers 4 did
    """

    name = "diverse_beam"

    @dataclass(frozen=True, kw_only=True)
    class Config(Decoding.Config):
        num_beams: int = 4
        """Sequences kept at every step, over all groups."""
        num_groups: int = 2
        """Groups they are divided into."""
        diversity: float = 0.5
        """Log-probability lost for a token each time an earlier group chose it in this step."""
        length_penalty: float = signed(1.0)
        """Exponent of the length that a log-probability is divided by."""
        early_stopping: bool = False
        """Whether a group stops once it has as many ended sequences as beams."""

        def __post_init__(self) -> None:
            if self.num_groups < 2 or self.num_beams < 2 or self.num_beams % self.num_groups:
                raise ConfigError(
                    f"decoding.num_groups={self.num_groups} must be at least 2 and divide "
                    f"decoding.num_beams={self.num_beams}"
                )

    config: Config

    @classmethod
    def at_once(cls, config: Any) -> tuple[str, int]:
        return "num_beams", int(config.num_beams)

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
        ends, pad = special_ids(model)
        num_beams, device = self.config.num_beams, input_BT.device
        stepper = Stepper(model, input_BT, mask_BT)
        stepper.select(torch.arange(len(input_BT), device=device).repeat_interleave(num_beams))
        searches = [Search(self.config, frozenset(ends), pad) for _ in range(len(input_BT))]
        for step in range(max_new_tokens):
            log_probs_BNV = stepper.logits_BV.log_softmax(-1).unflatten(0, (-1, num_beams))
            found = [search.step(own_NV) for search, own_NV in zip(searches, log_probs_BNV, strict=True)]
            if all(search.done for search in searches) or step + 1 == max_new_tokens:
                break
            order = [row * num_beams + source for row, (sources, _) in enumerate(found) for source in sources]
            stepper.select(torch.tensor(order, device=device))
            stepper.feed(torch.tensor([token for _, tokens in found for token in tokens], device=device))
        rows = [search.best() for search in searches]
        new_BS = input_BT.new_full((len(rows), max(map(len, rows))), pad)
        for index, row in enumerate(rows):
            new_BS[index, : len(row)] = torch.tensor(row, device=device)
        return new_BS


class Search:
    """The groups of one prompt."""

    def __init__(self, config: DiverseBeam.Config, ends: frozenset[int], pad: int) -> None:
        self.size, self.diversity = config.num_beams // config.num_groups, config.diversity
        self.groups = [
            Group(
                beams=[[] for _ in range(self.size)],
                size=self.size,
                length_penalty=config.length_penalty,
                early_stopping=config.early_stopping,
                ends=ends,
                pad=pad,
            )
            for _ in range(config.num_groups)
        ]

    @property
    def done(self) -> bool:
        return all(group.done for group in self.groups)

    def step(self, log_probs_NV: Tensor) -> tuple[list[int], list[int]]:
        """Extend all beams by a token; returns the beams they came from and their tokens."""
        used_V = torch.zeros_like(log_probs_NV[0])
        order: list[int] = []
        chosen: list[int] = []
        for index, group in enumerate(self.groups):
            own_NV = log_probs_NV[index * self.size : (index + 1) * self.size] - self.diversity * used_V
            sources, tokens = group.step(own_NV)
            used_V += torch.bincount(torch.tensor(tokens, device=used_V.device), minlength=len(used_V))
            order += [index * self.size + source for source in sources]
            chosen += tokens
        return order, chosen

    def best(self) -> list[int]:
        """The best sequence of all groups."""
        finished = [found for group in self.groups for found in group.close()]
        return max(finished, key=lambda found: found[0])[1]


@dataclass(kw_only=True)
class Group:
    """Open beams of one group and its best finished sequences."""

    beams: list[list[int]]
    size: int
    length_penalty: float
    early_stopping: bool
    ends: frozenset[int]
    pad: int
    scores: list[float] = field(default_factory=list)
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def step(self, log_probs_NV: Tensor) -> tuple[list[int], list[int]]:
        """Extend the beams by one token; returns the beams they came from and their tokens."""
        if self.done:
            self.beams = [[*beam, self.pad] for beam in self.beams]
            return list(range(self.size)), [self.pad] * self.size
        # At first all beams are equal; only one may spread.
        start = torch.tensor(self.scores or [0.0] + [-1e9] * (self.size - 1), device=log_probs_NV.device)
        vocab = log_probs_NV.shape[-1]
        spread = max(2, 1 + len(self.ends)) * self.size  # so many that all beams can go on
        best, where = (log_probs_NV + start[:, None]).flatten().topk(min(spread, self.size * vocab))
        beams: list[list[int]] = []
        scores: list[float] = []
        sources: list[int] = []
        for rank, (score, flat) in enumerate(zip(best.tolist(), where.tolist(), strict=True)):
            source, token = divmod(flat, vocab)
            if token in self.ends:
                if rank < self.size:
                    self._finish(score, self.beams[source], [token])
            elif len(beams) < self.size:
                beams.append([*self.beams[source], token])
                scores.append(score)
                sources.append(source)
        self.beams, self.scores = beams, scores
        if len(self.finished) >= self.size:
            attainable = float(best[0]) / len(beams[0]) ** self.length_penalty
            self.done = self.early_stopping or min(score for score, _ in self.finished) >= attainable
        return sources, [beam[-1] for beam in beams]

    def close(self) -> list[tuple[float, list[int]]]:
        """Finished sequences, open beams counted as finished unless the group is done."""
        if not self.done:
            for score, beam in zip(self.scores, self.beams, strict=True):
                self._finish(score, beam, [])
        return self.finished

    def _finish(self, score: float, beam: list[int], last: list[int]) -> None:
        """Keep a sequence if it is among the best; its end counts as a token of its length."""
        length = len(beam) + len(last)
        self.finished.append((score / length**self.length_penalty, [*beam, *last]))
        self.finished = sorted(self.finished, key=lambda found: -found[0])[: self.size]


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DiverseBeam]
