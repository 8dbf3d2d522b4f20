"""Instruct: supervised tuning on conversations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from harness.axes import TRAINING_AXES
from harness.axes.corpus import Split
from harness.errors import DataError
from harness.hookspecs import hookimpl
from harness.method import Problem
from harness.model.reach import beyond_table
from harness.rng import Purpose
from harness.stage import Choices, Stage, Work
from harness.stages._conversations import ConversationSource, MixedSource, encode_all
from harness.stages._leaks import with_item_texts, without_test_items
from harness.stages._references import referenced
from harness.stages._training import TuningConfig, run_training
from harness.stages._written import keep_written
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
    axes: ClassVar[tuple[str, ...]] = (
        "instruction",
        "instruction_strategy",
        "peft",
        "evaluator",
        *TRAINING_AXES,
    )
    needs = ("model",)
    may_need = ("documents", "tokens")
    produces = "model"
    decontaminates = "decontaminate"
    moves_facts = (("decontaminate", "counts"),)

    @dataclass(frozen=True, kw_only=True)
    class Config(TuningConfig):
        learning_rate: float = 1e-3
        """Peak learning rate; the schedule multiplies it."""
        budget: Budget = Budget(unit=Unit.epochs, amount=1.0)  # noqa: RUF009 - frozen
        """How long to train."""

    @classmethod
    def active(cls, cell: Cell) -> bool:
        return cell.choice("instruction", stage=cls.name) is not None

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        return with_item_texts(choices)

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
        from harness.stages._conversations import of_split, read_conversations
        from harness.training.losses import conversation_loss

        conversations, unread = read_conversations(work)
        conversations, cleared = without_test_items(work, conversations)
        loaded = open_model(work, trainable=True)
        source, facts = self.source(work, loaded, of_split(conversations, Split.train, work))
        adapted = adapt(loaded, work.one("peft"))
        facts |= {"entries_left_out": unread, **cleared}
        facts |= run_training(work, adapted.model, source, conversation_loss)
        if isinstance(source, MixedSource):
            facts |= source.facts()
        facts["effects"] = adapted.trained()
        return facts | adapted.save(
            work.out, applied=[peft_entry(adapted.choice, stage=work.stage)], template=True
        )

    def source(
        self, work: Work, loaded: Loaded, conversations: list[Conversation]
    ) -> tuple[BatchSource, dict[str, Any]]:
        """Batches in the order of the strategy, and facts about the data."""
        from harness.data.packed_source import PackedSource
        from harness.data.template import IGNORED, Template
        from harness.data.token_files import TokenFiles
        from harness.stages._packing import refuse_leaks

        strategy = work.one("instruction_strategy").build()
        strategy.models = referenced(work, "instruction_strategy")
        length, seed = work.config.sequence_length, work.stream(Purpose.data_order)
        given = conversations
        conversations = strategy.select(given, np.random.default_rng(work.stream(Purpose.sampling)))
        encoded = encode_all(conversations, Template(loaded.tokenizer), length=length)  # type: ignore[arg-type]
        learned = [c for c in conversations if c.id in encoded.by_id]
        num_tokens = sum(len(ids) for ids, _ in encoded.by_id.values())
        num_bytes = sum(len(t.text.encode()) for c in learned for t in c.turns)
        pad_id = loaded.tokenizer.pad_token_id or 0
        ours = getattr(loaded.model.config, "model_type", "") == "harness"  # type: ignore[union-attr]
        if strategy.packs() and not ours:
            refuse_leaks(loaded.model)
        source = ConversationSource(
            encoded.by_id,
            lambda rng: strategy.schedule(conversations, rng),
            seed=seed,
            length=length,
            packs=strategy.packs(),
            best_fit=strategy.best_fit(),
            pad_id=pad_id,
            bytes_per_token=num_bytes / num_tokens,
            document_ids=ours,
        )
        answers = sum(int((labels != IGNORED).sum()) for _, labels in encoded.by_id.values())
        facts = {
            **encoded.facts(),
            "answer_token_share": answers / num_tokens,
            "num_instructions": len(learned),
            "num_instructions_by_source": dict(Counter(c.source for c in learned)),
            "lexical_diversity": lexical_diversity(learned),
            **strategy.facts,
            **keep_written(conversations, given, work.out),
        }
        if strategy.packs():
            facts["padding_share"] = source.padding_share()
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


def lexical_diversity(conversations: Sequence[Conversation]) -> float:
    """MTLD of all words of conversations, one after another.

    Units: words; the survey (section 5.1.4) does not define its lexical diversity, MTLD fits its magnitude
    """
    from harness.data.similarity import mtld

    return mtld([word for c in conversations for turn in c.turns for word in turn.text.lower().split()])


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Instruct]
