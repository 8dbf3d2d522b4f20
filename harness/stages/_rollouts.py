"""Samples of the policy as training batches, and the loss of an alignment method on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from harness.axes.alignment import Alignment, LogProbs, Rollouts
from harness.axes.instruction import Role
from harness.data.template import IGNORED, Template
from harness.errors import ConfigError, DataError, IncompatibleError
from harness.model.conditioning import conditioned
from harness.rng import Purpose
from harness.stages._preferences import Reference, pad_rows, per_token_log_probs
from harness.training.contract import Batch, LossSum

if TYPE_CHECKING:
    from harness.axes.instruction import Conversation
    from harness.axes.reward import AnswerScorer, Reward
    from harness.stage import Work
    from harness.stages._adaptation import Adapted


class RolloutSource:
    """Batches of the policy's own samples, scored by the reward.

    Shapes: rows padded right; `old_BT`, `reference_BT`, `values_BT` B x T; `rewards_B`; `extra_<name>`
    State: position among the prompts, the current samples and how often they were used
    """

    def __init__(self, work: Work, adapted: Adapted, method: Alignment, reference: Reference | None) -> None:
        from harness.stages.instruct import training_conversations

        self.work, self.adapted, self.method, self.reference = work, adapted, method, reference
        self.tokenizer = adapted.loaded.tokenizer
        self.template = Template(self.tokenizer)  # type: ignore[arg-type]
        self.samples_per_prompt = method.samples_per_prompt()
        self.reward, self.scorer = rewarder(work)
        self.prompts = _prompts(training_conversations(work))
        self.num_prompts = len(self.prompts)
        self.num_samples = self.num_prompts * self.samples_per_prompt
        self.epoch = self.position = self.draws = self.uses = 0
        self.buffer: Batch = {}
        self.history: list[dict[str, float]] = []
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
        names = ("epoch", "position", "draws", "uses", "buffer", "history")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue with the same samples."""
        for name, value in state.items():
            setattr(self, name, value)

    def finish(self) -> dict[str, Any]:
        """Take the value head off again; facts about the rewards met."""
        if self.method.needs_values:
            del self.adapted.model.value_head
        tenth = max(1, len(self.history) // 10)
        mean = {
            f"{name}_{when}": float(np.mean([h[name] for h in part]))
            for name in ("reward", "kl", "answer_tokens")
            for when, part in (("first", self.history[:tenth]), ("last", self.history[-tenth:]))
        }
        return {**mean, "rollouts": self.draws, "reward_method": self.reward.name}

    def _draw(self, size: int) -> Batch:
        groups = size // self.samples_per_prompt
        chosen = [self._next_prompt() for _ in range(groups)]
        items = [item for item in chosen for _ in range(self.samples_per_prompt)]
        asked = [self.method.prompt(prompt) for prompt, _ in items]
        answers = self._sample(asked)
        texts = [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
        rewards_B = self.reward.score(
            [prompt for prompt, _ in items],
            texts,
            checks=[checks for _, checks in items],
            scorer=self.scorer,
        ).float()
        asked = self.method.relabel([prompt for prompt, _ in items], rewards_B)
        batch = pad_rows(
            [self._row(p, a) for p, a in zip(asked, answers, strict=True)],
            pad_id=self.tokenizer.pad_token_id or 0,
        )
        batch = {name: value.to(self.work.device) for name, value in batch.items()}
        rollouts = self._measure(batch, rewards_B.to(self.work.device))
        batch |= {"old_BT": rollouts.old_BT, "reference_BT": rollouts.reference_BT}
        batch["rewards_B"] = rollouts.rewards_B
        batch |= {f"extra_{name}": value for name, value in self.method.prepare(rollouts).items()}
        self.draws += 1
        drift_BT = (rollouts.old_BT - rollouts.reference_BT) * rollouts.policy.mask_BT
        self.history.append(
            {
                "reward": float(rewards_B.mean()),
                "kl": float(drift_BT.sum(-1).mean()),
                "answer_tokens": float(np.mean([len(ids) for ids in answers])),
            }
        )
        return batch

    def _next_prompt(self) -> tuple[str, Mapping[str, object]]:
        order = np.random.default_rng([self.work.stream(Purpose.data_order), self.epoch])
        place = int(order.permutation(self.num_prompts)[self.position])
        self.position += 1
        if self.position == self.num_prompts:
            self.epoch, self.position = self.epoch + 1, 0
        return self.prompts[place]

    @torch.no_grad()
    def _sample(self, prompts: Sequence[str]) -> list[list[int]]:
        """One sampled answer for each prompt, its end token included where it came."""
        settings = self.work.config
        rows = [self.template.prompt_ids(p)[-settings.sequence_length :] for p in prompts]
        width, pad = max(map(len, rows)), self.tokenizer.pad_token_id or 0
        ids_BT = torch.tensor([[pad] * (width - len(r)) + r for r in rows], device=self.work.device)
        mask_BT = torch.tensor([[0] * (width - len(r)) + [1] * len(r) for r in rows], device=ids_BT.device)
        with torch.random.fork_rng(devices=[ids_BT.device] if ids_BT.is_cuda else []):
            torch.manual_seed((self.work.stream(Purpose.sampling) + self.draws) % 2**63)
            if self.method.samples_from_start() and self.reference is not None:
                with self.reference() as start:
                    out = self._generate(start, ids_BT, mask_BT)
            else:
                out = self._generate(self.adapted.model, ids_BT, mask_BT)
        end = self.tokenizer.eos_token_id
        answers = []
        for row in out[:, width:].tolist():
            answers.append(row[: row.index(end) + 1] if end in row else row)
        return answers

    def _generate(self, model: nn.Module, ids_BT: Tensor, mask_BT: Tensor) -> Tensor:
        training = model.training
        model.eval()
        out: Tensor = model.generate(  # type: ignore[operator]
            input_ids=ids_BT,
            attention_mask=mask_BT,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            temperature=self.work.config.temperature,
            max_new_tokens=self.work.config.max_new_tokens,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.tokenizer.eos_token_id,
        )
        model.train(training)
        return out

    def _row(self, prompt: str, answer: list[int]) -> tuple[np.ndarray, np.ndarray]:
        opened = self.template.prompt_ids(prompt)[-self.work.config.sequence_length :]
        ids = np.array([*opened, *answer], dtype=np.int64)
        labels = np.concatenate([np.full(len(opened), IGNORED), np.array(answer, dtype=np.int64)])
        return ids[:-1], labels[1:]

    @torch.no_grad()
    def _measure(self, batch: Batch, rewards_B: Tensor) -> Rollouts:
        """Log-probabilities and values of the samples as they are drawn."""
        self.adapted.model.eval()
        policy, values_BT = forward(self.adapted.model, batch, values=self.method.needs_values)
        reference_BT = policy.per_token_BT
        if self.reference is not None:
            with self.reference() as other:
                reference_BT = forward(other, batch, values=False)[0].per_token_BT
        self.adapted.model.train()
        return Rollouts(
            policy=policy,
            old_BT=policy.per_token_BT,
            reference_BT=reference_BT,
            rewards_B=rewards_B,
            samples_per_prompt=self.samples_per_prompt,
            values_BT=values_BT,
            extras={},
        )


def forward(model: nn.Module, batch: Batch, *, values: bool) -> tuple[LogProbs, Tensor | None]:
    """Log-probabilities of the answers and, where asked for, the value head's estimates."""
    read = {name: batch[name] for name in ("input_ids", "attention_mask", "labels_BT")}
    inputs = conditioned(model, **read)
    out = model(**inputs, use_cache=False, output_hidden_states=values)
    found = per_token_log_probs(out.logits, batch["labels_BT"])
    if not values:
        return found, None
    values_BT: Tensor = model.value_head(out.hidden_states[-1].float())[..., 0]  # type: ignore[operator]
    return found, values_BT * found.mask_BT


def rollout_loss(method: Alignment, *, samples_per_prompt: int) -> Callable[[nn.Module, Batch], LossSum]:
    """The training loop's loss for a method that learns from its own samples.

    A loss of B items is averaged over samples, one of B x T over the answers' tokens.
    """

    def loss(model: nn.Module, batch: Batch) -> LossSum:
        policy, values_BT = forward(model, batch, values=method.needs_values)
        extras = {k.removeprefix("extra_"): v for k, v in batch.items() if k.startswith("extra_")}
        rollouts = Rollouts(
            policy=policy,
            old_BT=batch["old_BT"],
            reference_BT=batch["reference_BT"],
            rewards_B=batch["rewards_B"],
            samples_per_prompt=samples_per_prompt,
            values_BT=values_BT,
            extras=extras,
        )
        items, facts = method.rollout_loss(rollouts)
        facts = {"reward": rollouts.rewards_B, **facts}
        if items.ndim == 1:
            count = torch.tensor(float(len(items)), device=items.device)
            return LossSum(items.sum(), count, {name: f.detach().sum() for name, f in facts.items()})
        tokens = policy.mask_BT.sum()
        share = tokens / len(rollouts.rewards_B)  # facts are means over samples, the count is of tokens
        return LossSum(
            (items * policy.mask_BT).sum(), tokens, {n: f.detach().sum() * share for n, f in facts.items()}
        )

    return loss


def rewarder(work: Work) -> tuple[Reward, AnswerScorer | None]:
    """The chosen reward and the model it reads, if any.

    Raises: IncompatibleError where none is chosen or a learned one was not trained
    """
    from harness.model.scorer import ModelScorer, load_scorer

    choice = work.choices.get("reward")
    if choice is None or isinstance(choice, tuple):
        raise IncompatibleError(
            "the alignment method learns from rewards; choose reward=rules, pairwise, ensemble or judge"
        )
    method: Reward = choice.build()
    if method.reads_language_model:
        artifact = work.inputs.get("reward.model")
        if artifact is not None:
            return method, load_scorer(artifact, work.load, device=work.device)
        from harness.model.artifact import open_model

        loaded = open_model(work)
        loaded.model.requires_grad_(False)
        return method, ModelScorer(loaded)
    if not method.trains:
        return method, None
    if "reward" not in work.inputs:
        raise IncompatibleError(f"reward={method.name} is trained: put the stage reward before align")
    return method, load_scorer(work.inputs["reward"], work.load, device=work.device)


def _prompts(conversations: Sequence[Conversation]) -> list[tuple[str, Mapping[str, object]]]:
    found: list[tuple[str, Mapping[str, object]]] = [
        (c.turns[0].text, c.checks) for c in conversations if c.turns and c.turns[0].role is Role.user
    ]
    if not found:
        raise DataError("no conversation starts with a user turn; align has no prompt to answer")
    return found
