"""Diverse beam search: groups of beams, each punished for tokens that earlier groups chose."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from harness import ConfigError, Decoding, Method, hookimpl
from harness_plugins.decoding._stepping import Stepper, special_ids


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
        length_penalty: float = 1.0
        """Exponent of the length that a log-probability is divided by."""

        def __post_init__(self) -> None:
            if self.num_groups < 2 or self.num_beams % self.num_groups:
                raise ConfigError(
                    f"decoding.num_groups={self.num_groups} must be at least 2 and divide "
                    f"decoding.num_beams={self.num_beams}"
                )

    config: Config

    @torch.inference_mode()
    def generate(
        self, model: nn.Module, input_BT: Tensor, mask_BT: Tensor, *, max_new_tokens: int, seed: int
    ) -> Tensor:
        end, pad = special_ids(model)
        rows = [
            self._search(model, ids_1T, mask_1T, max_new_tokens, end, pad)
            for ids_1T, mask_1T in zip(input_BT.split(1), mask_BT.split(1), strict=True)
        ]
        new_BS = input_BT.new_full((len(rows), max(map(len, rows))), pad)
        for index, row in enumerate(rows):
            new_BS[index, : len(row)] = torch.tensor(row, device=input_BT.device)
        return new_BS

    def _search(
        self, model: nn.Module, ids_1T: Tensor, mask_1T: Tensor, steps: int, end: int | None, pad: int
    ) -> list[int]:
        size = self.config.num_beams // self.config.num_groups
        stepper = Stepper(model, ids_1T, mask_1T)
        stepper.select(torch.zeros(self.config.num_beams, dtype=torch.long, device=ids_1T.device))
        groups = [
            Group(beams=[[] for _ in range(size)], size=size, length_penalty=self.config.length_penalty)
            for _ in range(self.config.num_groups)
        ]
        for step in range(steps):
            log_probs_BV = stepper.logits_BV.log_softmax(-1)
            used = torch.zeros_like(log_probs_BV[0])
            order: list[int] = []
            for index, group in enumerate(groups):
                own_BV = log_probs_BV[index * size : (index + 1) * size] - self.config.diversity * used
                sources, tokens = group.step(own_BV, end, pad)
                used += torch.bincount(torch.tensor(tokens, device=used.device), minlength=len(used))
                order += [index * size + source for source in sources]
            if all(group.done for group in groups) or step + 1 == steps:
                break
            stepper.select(torch.tensor(order, device=ids_1T.device))
            stepper.feed(torch.tensor([beam[-1] for g in groups for beam in g.beams], device=ids_1T.device))
        finished = [found for group in groups for found in group.close()]
        return max(finished, key=lambda found: found[0])[1]


@dataclass
class Group:
    """Open beams of one group and its best finished sequences."""

    beams: list[list[int]]
    size: int
    length_penalty: float
    scores: list[float] = field(default_factory=list)
    finished: list[tuple[float, list[int]]] = field(default_factory=list)
    done: bool = False

    def step(self, log_probs_BV: Tensor, end: int | None, pad: int) -> tuple[list[int], list[int]]:
        """Extend the beams by one token; returns the beams they came from and their tokens."""
        if self.done:
            self.beams = [[*beam, pad] for beam in self.beams]
            return list(range(self.size)), [pad] * self.size
        # At first all beams are equal; only one may spread.
        start = torch.tensor(self.scores or [0.0] + [-1e9] * (self.size - 1), device=log_probs_BV.device)
        vocab = log_probs_BV.shape[-1]
        best, where = (log_probs_BV + start[:, None]).flatten().topk(2 * self.size)
        beams: list[list[int]] = []
        scores: list[float] = []
        sources: list[int] = []
        for rank, (score, flat) in enumerate(zip(best.tolist(), where.tolist(), strict=True)):
            source, token = divmod(flat, vocab)
            if token == end:
                if rank < self.size:
                    self._finish(score, self.beams[source], [token])
            elif len(beams) < self.size:
                beams.append([*self.beams[source], token])
                scores.append(score)
                sources.append(source)
        self.beams, self.scores = beams, scores
        if len(self.finished) >= self.size:
            attainable = float(best[0]) / len(beams[0]) ** self.length_penalty
            self.done = min(score for score, _ in self.finished) >= attainable
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
