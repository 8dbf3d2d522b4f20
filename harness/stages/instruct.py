"""Instruct: supervised tuning on conversations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.axes import TRAINING_AXES
from harness.axes.corpus import Split
from harness.errors import DataError
from harness.hookspecs import hookimpl
from harness.method import Problem
from harness.rng import Purpose
from harness.stage import Stage, Work
from harness.stages._references import referenced
from harness.stages._training import TrainingConfig, beyond_table, run_training
from harness.training.settings import Budget, Unit

if TYPE_CHECKING:
    from torch import nn

    from harness.axes.instruction import Conversation
    from harness.compose import Cell
    from harness.model.artifact import Loaded
    from harness.training.contract import BatchSource


class Instruct(Stage):
    """Tunes the model on conversations; the loss counts the assistant's tokens only."""

    name = "instruct"
    after = ("extend",)
    axes: ClassVar[tuple[str, ...]] = ("instruction", "instruction_strategy", "peft", *TRAINING_AXES)
    needs = ("model",)
    may_need = ("documents", "tokens")
    produces = "model"

    @dataclass(frozen=True, kw_only=True)
    class Config(TrainingConfig):
        learning_rate: float = 1e-3
        """Peak learning rate; the schedule multiplies it."""
        budget: Budget = Budget(unit=Unit.epochs, amount=1.0)  # noqa: RUF009 - frozen
        """How long to train."""

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("instruction", stage=cls.name) is not None

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Sequences within the position scheme, and one prompt in each where it is a prefix or a source."""
        yield from beyond_table(
            meta_model, cell.stage_config(stage).sequence_length, where=f"{stage}.sequence_length"
        )
        strategy, architecture = cell.choice("instruction_strategy", stage=stage), cell.choice("architecture")
        if strategy is None or architecture is None or not strategy.build().packs():
            return
        if architecture.method.uses_prefix() or architecture.method.has_encoder():  # type: ignore[attr-defined]
            yield Problem(
                where="instruction_strategy",
                message=f"instruction_strategy={strategy.method.name} packs several conversations into a "
                f"sequence, of which architecture={architecture.method.name} reads one prompt; use "
                "proportional or another that does not pack",
            )

    def run(self, work: Work) -> dict[str, Any]:
        from harness.model.artifact import open_model
        from harness.stages._adaptation import adapt, peft_entry
        from harness.training.losses import conversation_loss

        conversations = training_conversations(work)
        loaded = open_model(work, trainable=True)
        source, facts = self.source(work, loaded, conversations)
        adapted = adapt(loaded, work.one("peft"))
        facts |= run_training(work, adapted.model, source, conversation_loss)
        facts["effects"] = adapted.trained()
        return facts | adapted.save(
            work.out, applied=[peft_entry(adapted.choice, stage=work.stage)], template=True
        )

    def source(
        self, work: Work, loaded: Loaded, conversations: list[Conversation]
    ) -> tuple[BatchSource, dict[str, Any]]:
        """Batches in the order of the strategy, and facts about the data."""
        from harness.data.template import IGNORED, Template
        from harness.data.token_files import PackedSource, TokenFiles
        from harness.stages._conversations import ConversationSource, MixedSource, encode_all

        strategy = work.one("instruction_strategy").build()
        strategy.models = referenced(work, "instruction_strategy")
        length, seed = work.config.sequence_length, work.stream(Purpose.data_order)
        conversations = strategy.select(conversations, np.random.default_rng(work.stream(Purpose.sampling)))
        encoded, dropped = encode_all(conversations, Template(loaded.tokenizer), length=length)
        num_tokens = sum(len(ids) for ids, _ in encoded.values())
        num_bytes = sum(len(t.text.encode()) for c in conversations if c.id in encoded for t in c.turns)
        pad_id = loaded.tokenizer.pad_token_id or 0
        ours = getattr(loaded.model.config, "model_type", "") == "harness"  # type: ignore[union-attr]
        source = ConversationSource(
            encoded,
            lambda rng: strategy.schedule(conversations, rng),
            seed=seed,
            length=length,
            packs=strategy.packs(),
            pad_id=pad_id,
            bytes_per_token=num_bytes / num_tokens,
            document_ids=ours,
        )
        answers = sum(int((labels != IGNORED).sum()) for _, labels in encoded.values())
        facts = {
            "conversations": len(encoded),
            "conversations_dropped": dropped,
            "answer_token_share": answers / num_tokens,
        }
        share = strategy.pretraining_share()
        if not share:
            return source, facts
        if "tokens" not in work.inputs:
            raise DataError(
                f"instruction_strategy={strategy.name} mixes pretraining data in, but no tokens stage ran; "
                "add corpus, tokenizer and tokens to stages"
            )
        windows = PackedSource(TokenFiles(work.inputs["tokens"].path), length=length, seed=seed)
        return MixedSource(source, windows, share=share, pad_id=pad_id), facts


def training_conversations(work: Work) -> list[Conversation]:
    """The training split of the chosen instruction source.

    Raises: DataError where it is empty
    """
    from harness.data import documents

    instruction = work.one("instruction").build()
    corpus = work.inputs.get("documents")
    texts = documents.read(corpus.path) if corpus is not None else []
    found = [
        c for c in instruction.conversations(texts, work.stream(Purpose.sampling)) if c.split is Split.train
    ]
    if not found:
        raise DataError(f"instruction={instruction.name} gave no training conversation")
    return found


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Instruct]
