"""`harness.load_model` and `harness.load_samples`: a record's model as it was measured, and what it said."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.api.arguments import opened
from harness.commands.models import load_subject
from harness.commands.records import committed, find
from harness.errors import ConfigError, DataError
from harness.plan.manifest import find_record
from harness.report.compact import read_compact
from harness.report.record import Record
from harness.report.scored import TEXT

if TYPE_CHECKING:
    from harness.axes.evaluator import Subject
    from harness.store import Store

RecordLike = str | Path | Mapping[str, Any] | pd.Series | pd.DataFrame
"""A cell: `<sweep>/<cell>` or the start of its id, a folder, a record, or a row of a frame of cells."""


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A record's model, ready for `model.generate`: adapters, quantized weights and context are in place.

    `model, tokenizer = harness.load_model(record)` takes it apart.
    """

    model: Any
    """A transformers causal model in eval mode, its generation config knowing where an answer ends."""
    tokenizer: Any
    """transformers' PreTrainedTokenizerFast, with the chat template where the model was tuned with one."""
    subject: Subject
    """As evaluators had it."""

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.tokenizer))

    def prompt(self, message: str) -> str:
        """A user's message as the model was asked it: methods' own words and chat template around it."""
        return self.subject.prompt(message)

    def encode(self, message: str) -> Any:
        """The tokens of a user's message as the model was asked it.

        Shapes: input_ids and attention_mask 1 x T, on the model's device
        """
        bare = self.subject.template is None
        found = self.tokenizer(self.prompt(message), add_special_tokens=bare, return_tensors="pt")
        return {name: found[name].to(self.model.device) for name in ("input_ids", "attention_mask")}

    def answer(
        self, messages: str | Sequence[str], *, max_new_tokens: int = 32, batch_size: int = 32
    ) -> list[str]:
        """Answers by the cell's own decoding and seed, as evaluators that generate drew them.

        What is drawn for a message follows from its place among the messages.
        Units: max_new_tokens in tokens; batch_size = messages continued at once
        Raises: TaskError where the window leaves no room for a prompt
        """
        from harness.evaluation.answers import answer

        asked = [messages] if isinstance(messages, str) else list(messages)
        return answer(self.subject, asked, max_new_tokens=max_new_tokens, batch_size=batch_size).texts


def load_model(
    record: RecordLike, *, device: str = "cpu", store: Store | Path | str | None = None
) -> LoadedModel:
    """The model of a record as it was measured: base, adapters, quantized weights and context in place.

    Logits are those that the cell's evaluation scored, to the last bit on the same device with the same
    number of threads (`torch.set_num_threads`).
    Raises: StoreError where no record or several answer, where the cell made no model, or where its
    artifacts were collected, saying how to make them again; ChangedError where a model from outside the store
    is another one by now; UnknownNameError where a method's plugin is not installed
    """
    where = opened(store)
    subject = load_subject(found(record, where).data, where, device=device)
    return LoadedModel(model=subject.model, tokenizer=subject.tokenizer, subject=subject)


def load_samples(record: RecordLike, *, store: Store | Path | str | None = None) -> pd.DataFrame:
    """What a record's evaluations asked, item by item: one row an item.

    Columns: evaluator, task, doc_hash, prompt, answer, target (empty where a task has none), and one for each
    metric of an item, NaN where a task does not measure it. Items of the same doc_hash pair over cells. A
    committed file of records keeps the texts of a few items only.
    Units: as the task's metrics
    Raises: StoreError where no record or several answer; DataError where it kept no samples
    """
    cell = found(record, opened(store))
    parts = []
    for name in cell.sample_names:
        items = cell.samples(name)
        if items is not None:
            evaluator, _, task = name.partition(".")
            parts.append(items.frame().assign(evaluator=evaluator, task=task))
    if not parts:
        raise DataError(f"{cell.data.get('sweep')}/{cell.cell} has no samples: {cell.reason}")
    whole = pd.concat(parts, ignore_index=True)
    first = ["evaluator", "task", "doc_hash", *TEXT]
    whole = whole.reindex(columns=[*first, *(name for name in whole if name not in first)])
    return whole.assign(**{name: whole[name].astype(object).where(whole[name].notna(), "") for name in TEXT})


def found(record: RecordLike, store: Store) -> Record:
    """The record that is meant, as the store or a committed file has it.

    Raises: StoreError where none or several answer; ConfigError for what names no cell
    """
    name = _name(record)
    file, _ = committed(name)
    if file is not None:
        cell = find(store.root, name)["cell"]
        return next(each for each in read_compact(file) if each.cell == cell)
    folder, data = find_record(store.root, name)
    return Record(data=data, folder=folder)


def _name(record: RecordLike) -> str:
    if isinstance(record, str | Path):
        return str(record)
    if isinstance(record, pd.DataFrame):
        if "cell" not in record or record["cell"].nunique() != 1:
            number = record["cell"].nunique() if "cell" in record else 0
            raise ConfigError(f"this frame holds {number} cells; give one: a row (frame.iloc[0]) or its id")
        record = record.iloc[0]
    values = record._asdict() if hasattr(record, "_asdict") else record
    if not isinstance(values, Mapping | pd.Series) or "cell" not in values:
        raise ConfigError(
            f"{type(record).__name__} names no cell; give '<sweep>/<cell>', a row of harness.records(...), "
            "or a record"
        )
    sweep = values.get("sweep")
    return f"{sweep}/{values['cell']}" if sweep else str(values["cell"])
