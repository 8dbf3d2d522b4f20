"""Samples of the policy as training batches."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.axes.alignment import Alignment, LogProbs, Rollouts
from harness.axes.corpus import Split
from harness.data.template import IGNORED, Template
from harness.errors import ConfigError
from harness.evaluation.sampling import LogProbRecorder, end_ids, plain_sampling
from harness.rng import Purpose
from harness.stages._leaks import without_test_items
from harness.stages._log_probs import Reference
from harness.stages._preferences import pad_rows
from harness.stages._prompts import Asked, asked_of, training_prompts
from harness.stages._rewarder import rewarder
from harness.stages._rollout_loss import forward
from harness.training.contract import Batch

if TYPE_CHECKING:
    from harness.axes.instruction import Conversation
    from harness.stage import Work
    from harness.stages._adaptation import Adapted

HELD_OUT_PROMPTS = 64
"""Prompts on which the policy is measured before and after."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What the policy said: the tokens of each prompt and answer, rewards."""

    prompt_ids: list[list[int]]
    answers: list[list[int]]
    log_probs: list[Tensor]
    """Of each answer's tokens, when they were sampled."""
    rewards_B: Tensor
    cut: int
    """Answers that reached max_new_tokens without their end."""


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """One answer of the policy and its reward."""

    item: Asked
    answer: list[int]
    reward: float


class RolloutSource:
    """Batches of the policy's own samples, scored by the reward.

    Shapes: rows padded right; `old_BT`, `reference_BT`, `values_BT` B x T; `rewards_B`; `extra_<name>`
    State: position among the prompts, the current samples and how often they were used, and all samples so
    far where the method learns from those
    """

    def __init__(self, work: Work, adapted: Adapted, method: Alignment, reference: Reference | None) -> None:
        from harness.stages._conversations import of_split, read_conversations, spread

        self.work, self.adapted, self.method, self.reference = work, adapted, method, reference
        self.tokenizer = adapted.loaded.tokenizer
        self.template = Template(self.tokenizer)  # type: ignore[arg-type]
        self.end_ids = end_ids(adapted.model, self.template)
        self.samples_per_prompt = method.samples_per_prompt()
        self.reward, self.scorer = rewarder(work)
        found, self.cleared = without_test_items(work, read_conversations(work)[0])
        self.prompts, self.left_out = training_prompts(self._asked(of_split(found, Split.train, work)))
        held_out, _ = self._asked([c for c in found if c.split is Split.validation])
        self.held_out = spread(held_out, HELD_OUT_PROMPTS)
        self.num_prompts = len(self.prompts)
        self.num_samples = self.num_prompts * self.samples_per_prompt
        self.epoch = self.position = self.draws = self.uses = 0
        self.buffer: Batch = {}
        self.history: list[dict[str, float]] = []
        self.pool: list[Drawn] = []
        self.seconds = 0.0
        self.start = self.held_out_facts()
        if method.needs_values:
            width = adapted.model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
            head = nn.Linear(width, 1)
            nn.init.zeros_(head.weight)
            nn.init.zeros_(head.bias)
            adapted.model.value_head = head

    def next(self, size: int) -> Batch:
        """`size` samples: the current ones until they were used often enough, then new ones.

        Raises: ConfigError where `size` does not hold whole groups of samples
        """
        if size % self.samples_per_prompt:
            raise ConfigError(
                f"align.batch_size={size} must be a multiple of the {self.samples_per_prompt} samples that "
                f"alignment={self.method.name} draws for each prompt"
            )
        if not self.buffer or self.uses >= self.method.updates_per_rollout():
            self.buffer, self.uses = self._draw(size), 0
        self.uses += 1
        return self.buffer

    def state_dict(self) -> dict[str, Any]:
        """Position and current samples."""
        names = ("epoch", "position", "draws", "uses", "buffer", "history", "seconds")
        places = {id(item): place for place, item in enumerate(self.prompts)}
        pool = [[places[id(drawn.item)], drawn.answer, drawn.reward] for drawn in self.pool]
        return {**{name: getattr(self, name) for name in names}, "pool": pool}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same samples."""
        for name, value in state.items():
            setattr(self, name, value)
        self.pool = [Drawn(item=self.prompts[i], answer=list(a), reward=r) for i, a, r in state["pool"]]

    def finish(self, *, seconds: float) -> dict[str, Any]:
        """Take the value head off again; facts about the samples met, and the policy on held-out prompts.

        Units: `seconds` of the whole training, of which generation took `generation_share`
        """
        if self.method.needs_values:
            del self.adapted.model.value_head
        tenth = max(1, len(self.history) // 10)
        facts: dict[str, Any] = {
            f"{name}_{when}": float(np.mean([h[name] for h in part]))
            for name in ("reward", "kl", "answer_tokens")
            for when, part in (("first", self.history[:tenth]), ("last", self.history[-tenth:]))
        }
        facts |= {f"{name}_start": value for name, value in self.start.items()}
        facts |= {f"{name}_end": value for name, value in self.held_out_facts().items()}
        drawn = sum(h["answer_tokens"] * h["answers"] for h in self.history)
        return facts | {
            "rollouts": self.draws,
            "samples_are_of": "the start" if self.method.samples_from_start() else "the policy",
            "answers_cut_share": float(np.mean([h["cut"] for h in self.history])),
            "rollout_tokens_per_second": drawn / self.seconds,
            "generation_share": self.seconds / seconds,
            "reward_method": self.reward.name,
            "prompts": self.num_prompts,
            "prompts_dropped": sum(self.left_out.values()),
            "prompts_dropped_by_reason": dict(self.left_out),
        }

    def held_out_facts(self) -> dict[str, float]:
        """Mean reward, drift from the reference and length of the policy's answers to held-out prompts."""
        if not self.held_out:
            return {}
        found = self._sample(self.held_out, seed=self.work.stream(Purpose.sampling), from_start=False)
        batch = self._batch(found.answers, found.prompt_ids)
        rewards_B = found.rewards_B.to(self.work.device)
        measured = self._measure(batch, rewards_B, values=False, drawn=found.log_probs)
        drift_BT = (measured.old_BT - measured.reference_BT) * measured.policy.mask_BT
        return {
            "held_out_reward": float(found.rewards_B.mean()),
            "held_out_kl": float(drift_BT.sum(-1).mean()),
            "held_out_answer_tokens": float(np.mean([len(ids) for ids in found.answers])),
        }

    def _draw(self, size: int) -> Batch:
        groups = size // self.samples_per_prompt
        chosen = [self._next_prompt() for _ in range(groups)]
        items = [item for item in chosen for _ in range(self.samples_per_prompt)]
        seed = (self.work.stream(Purpose.sampling) + self.draws + 1) % 2**63
        began = time.perf_counter()
        from_start = self.method.samples_from_start()
        found = self._sample(items, seed=seed, from_start=from_start)
        self.seconds += time.perf_counter() - began
        batch, rewards_B, drawn = self._learned(found, items, seed=seed)
        rollouts = self._measure(
            batch,
            rewards_B.to(self.work.device),
            values=self.method.needs_values,
            drawn=drawn,
            from_start=from_start,
        )
        batch |= {"old_BT": rollouts.old_BT, "reference_BT": rollouts.reference_BT}
        batch["rewards_B"] = rollouts.rewards_B
        batch |= {f"extra_{name}": value for name, value in self.method.prepare(rollouts).items()}
        self.draws += 1
        drift_BT = (rollouts.old_BT - rollouts.reference_BT) * rollouts.policy.mask_BT
        self.history.append(
            {
                "reward": float(found.rewards_B.mean()),
                "kl": float(drift_BT.sum(-1).mean()),
                "answer_tokens": float(np.mean([len(ids) for ids in found.answers])),
                "answers": float(len(found.answers)),
                "cut": found.cut / len(found.answers),
            }
        )
        return batch

    def _learned(
        self, found: Sampled, items: Sequence[Asked], *, seed: int
    ) -> tuple[Batch, Tensor, list[Tensor] | None]:
        """The samples to learn from, under the prompts of their method, and their rewards.

        Their log-probabilities too, where they are learned as they were sampled.
        """
        pool = self.pool if type(self.method).replay is not Alignment.replay else []
        new = zip(items, found.answers, found.rewards_B.tolist(), strict=True)
        pool += [Drawn(item=item, answer=answer, reward=reward) for item, answer, reward in new]
        rewards_P = torch.tensor([drawn.reward for drawn in pool])
        texts = self.method.relabel([drawn.item.turns[-1].text for drawn in pool], rewards_P)
        picked = self.method.replay(rewards_P, len(items), torch.Generator().manual_seed(seed))
        places = range(len(pool)) if picked is None else picked.tolist()
        opened = [self.template.prompt_ids(pool[place].item.with_message(texts[place])) for place in places]
        batch = self._batch([pool[place].answer for place in places], opened)
        as_sampled = picked is None and opened == found.prompt_ids
        return batch, rewards_P[list(places)], found.log_probs if as_sampled else None

    def _batch(self, answers: Sequence[list[int]], opened: Sequence[list[int]]) -> Batch:
        rows = []
        for prompt, answer in zip(opened, answers, strict=True):
            ids = np.array([*prompt, *answer], dtype=np.int64)
            labels = np.concatenate([np.full(len(prompt), IGNORED), np.array(answer, dtype=np.int64)])
            rows.append((ids[:-1], labels[1:]))
        batch = pad_rows(rows, pad_id=self.tokenizer.pad_token_id or 0)
        return {name: value.to(self.work.device) for name, value in batch.items()}

    def _next_prompt(self) -> Asked:
        order = np.random.default_rng([self.work.stream(Purpose.data_order), self.epoch])
        place = int(order.permutation(self.num_prompts)[self.position])
        self.position += 1
        if self.position == self.num_prompts:
            self.epoch, self.position = self.epoch + 1, 0
        return self.prompts[place]

    @torch.no_grad()
    def _sample(self, items: Sequence[Asked], *, seed: int, from_start: bool) -> Sampled:
        """One sampled answer for each prompt, its end token included where it came, and its reward."""
        rows = [self._ids(item) for item in items]
        width, pad = max(map(len, rows)), self.tokenizer.pad_token_id or 0
        ids_BT = torch.tensor([[pad] * (width - len(r)) + r for r in rows], device=self.work.device)
        mask_BT = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=ids_BT.device)
        with torch.random.fork_rng(devices=[ids_BT.device] if ids_BT.is_cuda else []):
            torch.manual_seed(seed)
            if from_start and self.reference is not None:
                with self.reference() as start:
                    out, log_probs_BT = self._generate(start, ids_BT, mask_BT)
            else:
                out, log_probs_BT = self._generate(self.adapted.model, ids_BT, mask_BT)
        answers, cut = [], 0
        for row in out[:, width:].tolist():
            end = next((place for place, token in enumerate(row) if token in self.end_ids), None)
            answers.append(row if end is None else row[: end + 1])
            cut += end is None
        rewards_B = self.reward.score(
            [item.turns for item in items],
            [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers],
            checks=[item.checks for item in items],
            scorer=self.scorer,
        ).float()
        log_probs = [found_T[: len(ids)] for ids, found_T in zip(answers, log_probs_BT, strict=True)]
        return Sampled(prompt_ids=rows, answers=answers, log_probs=log_probs, rewards_B=rewards_B, cut=cut)

    def _asked(self, conversations: Sequence[Conversation]) -> tuple[list[Asked], Counter[str]]:
        needs_checks = self.reward.reads_checks(self.reward.config)
        length = self.work.config.sequence_length
        return asked_of(conversations, self._ids, length=length, needs_checks=needs_checks)

    def _ids(self, item: Asked) -> list[int]:
        """The tokens that ask for an answer, as the method words the prompt."""
        return self.template.prompt_ids(item.with_message(self.method.prompt(item.turns[-1].text)))

    def _generate(self, model: nn.Module, ids_BT: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Prompts with answers, and the log-probability of each token of an answer."""
        pad, settings = self.tokenizer.pad_token_id, self.work.config
        training, recorder = model.training, LogProbRecorder(settings.temperature)
        model.eval()
        with plain_sampling(model, temperature=settings.temperature, end_ids=self.end_ids, pad_id=pad):
            out: Tensor = model.generate(  # type: ignore[operator]
                input_ids=ids_BT,
                attention_mask=mask_BT,
                max_new_tokens=settings.max_new_tokens,
                logits_processor=[recorder],
            )
        model.train(training)
        return out, recorder.log_probs(out[:, -1])

    @torch.no_grad()
    def _measure(
        self,
        batch: Batch,
        rewards_B: Tensor,
        *,
        values: bool,
        drawn: Sequence[Tensor] | None,
        from_start: bool = False,
    ) -> Rollouts:
        """Log-probabilities and values of the samples as they are drawn.

        `drawn` are those of the model that sampled, the start or the policy, which then takes no pass here.
        """
        temperature = self.work.config.temperature
        model, training = self.adapted.model, self.adapted.model.training
        model.eval()
        sampled = None if drawn is None else in_place(drawn, batch["labels_BT"])
        values_BT = None
        if sampled is not None and not values and not (from_start and self.reference is not None):
            policy = sampled
        else:
            policy, values_BT = forward(model, batch, values=values, temperature=temperature)
        reference_BT = policy.per_token_BT
        if self.reference is not None:
            if sampled is not None and from_start:
                reference_BT = sampled.per_token_BT
            else:
                with self.reference() as other:
                    reference_BT = forward(other, batch, values=False, temperature=temperature)[
                        0
                    ].per_token_BT
        model.train(training)
        return Rollouts(
            policy=policy,
            old_BT=policy.per_token_BT,
            reference_BT=reference_BT,
            rewards_B=rewards_B,
            samples_per_prompt=self.samples_per_prompt,
            values_BT=values_BT,
            extras={},
        )


def in_place(log_probs: Sequence[Tensor], labels_BT: Tensor) -> LogProbs:
    """Log-probabilities of answers where a batch has their tokens."""
    kept_BT = labels_BT != IGNORED
    per_token_BT = torch.zeros(labels_BT.shape, device=labels_BT.device)
    found_N = torch.cat(list(log_probs)).to(per_token_BT)
    return LogProbs(per_token_BT=per_token_BT.masked_scatter(kept_BT, found_N), mask_BT=kept_BT.float())
