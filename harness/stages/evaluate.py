"""Stage evaluate: one evaluator and task a part, so that adding a measurement re-runs no other."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.axes.evaluator import Evaluator, Subject
from harness.data.item_texts import HeldOutDocuments
from harness.errors import IncompatibleError
from harness.hookspecs import hookimpl
from harness.method import Choice, Method, Problem, check_limits
from harness.model.reach import beyond_table, no_room
from harness.stage import Choices, Stage, Work
from harness.stages._progress import Requests

if TYPE_CHECKING:
    from torch import nn

    from harness.axes.corpus import Document
    from harness.axes.decoding import Decoding
    from harness.axes.judge import Judge
    from harness.compose import Cell
    from harness.store.artifacts import Artifact


UNSTATED = 2048
"""Tokens of the window of a model that states none."""


class Dtype(StrEnum):
    """A format of numbers, by torch's name."""

    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


class Evaluate(Stage):
    """Measures the cell's latest model.

    Raises: TaskError where a task does not exist or cannot be had
    """

    name = "evaluate"
    after = ("generate",)
    axes = ("evaluator", "judge", "decoding")
    needs = ("model",)
    may_need = ("documents", "reward")
    produces = "evaluation"
    moves_facts = (("max_length", "truncated"), ("max_length", "truncated_contexts"))

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        max_length: int | None = None
        """Longest sequence the model is run on, in tokens; null = what the model states."""
        dtype: Dtype | None = None
        """Format of weights and activations while measured; null = that of the stored weights. Softmax and
        losses are in float32 always."""

        def __post_init__(self) -> None:
            check_limits(self, "evaluate", "max_length", null="what the model states")

    @classmethod
    def parts(cls, cell: Cell) -> Sequence[str]:
        return [
            f"{choice.method.name}.{task}"
            for choice in cell.choices("evaluator")
            if issubclass(choice.method, Evaluator)
            for task in choice.method.tasks(choice.config)
        ]

    @classmethod
    def check(cls, cell: Cell, stage: str, meta_model: nn.Module | None) -> Iterable[Problem]:
        """A measurement that measures nothing, or sequences that the model cannot read."""
        chosen = cell.choices("evaluator", stage=stage)
        if not chosen:
            yield Problem(
                where="evaluator",
                message=f"evaluator=[] leaves {stage} nothing to measure; choose one, e.g. "
                f"evaluator=[perplexity], or leave {stage} out of `stages`",
            )
        documents = "documents" in map(cell.makes, cell.stages)
        asked = cell.stage_config(stage).max_length
        if asked is not None:
            yield from beyond_table(meta_model, asked, where=f"{stage}.max_length")
        for choice in chosen:
            method: Any = choice.method
            where = f"evaluator.{method.name}"
            texts = {each.method.name for each in method.item_texts(choice.config)}
            if not documents and HeldOutDocuments.name in texts:
                yield Problem(
                    where=where,
                    message=f"it measures on documents, and no stage of {list(cell.stages)} makes any; "
                    "add the stage corpus",
                )
            if longest := method.longest(choice.config):
                yield from beyond_table(meta_model, longest, where=where)
            answer = method.longest_answer(choice.config)
            yield from no_room(cell, meta_model, answer=answer, window=asked, where=where)

    @classmethod
    def narrow(cls, part: str, choices: Choices) -> Choices:
        """The part's evaluator, asked for this task alone, and the axes that it uses."""
        chosen = _evaluator(part, choices)
        assert issubclass(chosen.method, Evaluator)
        uses = chosen.method.uses
        return {"evaluator": (chosen,)} | {axis: choices[axis] for axis in uses if axis in choices}

    @classmethod
    def draws(cls, part: str, choices: Choices) -> bool:
        chosen = _evaluator(part, choices)
        assert issubclass(chosen.method, Evaluator)
        return chosen.method.draws

    @classmethod
    def surroundings(cls, part: str, choices: Choices) -> dict[str, str]:
        chosen = _evaluator(part, choices)
        assert issubclass(chosen.method, Evaluator)
        return chosen.method.surroundings(chosen.config)

    def run(self, work: Work) -> dict[str, Any]:
        chosen = _evaluator(work.part, work.choices)
        config = work.config
        judge = work.choices.get("judge")
        load = partial(load_subject, work, judge=judge, max_length=config.max_length, dtype=config.dtype)
        subject = load(work.inputs["model"])
        own = {name: artifact for name, artifact in work.inputs.items() if name.startswith("evaluator.")}
        named = {name.rpartition(".")[2]: artifact for name, artifact in own.items()}
        subject.models = {option: partial(load, artifact) for option, artifact in named.items()}
        subject.names = {option: artifact.key for option, artifact in named.items()}
        subject.baseline = subject.models.get("baseline")
        subject.cache = work.cache
        subject.out = work.out
        subject.on_progress = Requests(work)
        found = chosen.build().evaluate(work.part.partition(".")[2], subject)
        metrics = [{"evaluator": chosen.method.name, **asdict(metric)} for metric in found.metrics]
        (work.out / "metrics.json").write_text(json.dumps(metrics, indent=1))
        found.samples.to_parquet(work.out / "samples.parquet", index=False)
        return {"metrics": metrics, "max_length": subject.max_length, **found.facts}


def _evaluator(part: str, choices: Choices) -> Choice:
    name = part.partition(".")[0]
    chosen = choices["evaluator"]
    found = [
        choice
        for choice in (chosen if isinstance(chosen, tuple) else (chosen,))
        if choice.method.name == name
    ]
    assert len(found) == 1, f"part '{part}' names no chosen evaluator"
    chosen_method = found[0].method
    assert issubclass(chosen_method, Evaluator)
    config = chosen_method.only(found[0].config, part.partition(".")[2])
    return replace(found[0], config=config)


def load_subject(
    work: Work,
    artifact: Artifact,
    *,
    judge: Any = None,
    max_length: int | None = None,
    dtype: str | None = None,
) -> Subject:
    """A model artifact ready to be measured, with what the cell chose for it.

    `judge` is the choice of who compares answers, `dtype` the format that it computes in (None: that of its
    weights).
    """
    from harness.data.template import Template
    from harness.evaluation.sampling import end_ids
    from harness.model.artifact import load_model, restore

    loaded = load_model(artifact, work.load, device=work.device, dtype=dtype)
    model, tokenizer = loaded.model.eval(), loaded.tokenizer
    if loaded.template:  # an answer ends where the template ends a turn
        model.generation_config.eos_token_id = end_ids(model, Template(tokenizer))  # type: ignore[union-attr, arg-type]
    applied = [restore(entry) for entry in loaded.applied]
    documents = work.inputs.get("documents")
    decoding = work.choices.get("decoding")
    return Subject(
        model=model,
        tokenizer=tokenizer,
        name=artifact.key,
        max_length=max_length or window(model),
        device=work.device,
        seed=work.seed,
        template=tokenizer.chat_template if loaded.template else None,
        prompts=[choice.build() for choice in applied if choice.method.prompt is not Method.prompt],
        decoding=_decoding(work, decoding, tokenizer, dtype),
        judge=_judge(work, judge),
        documents=None if documents is None else partial(_documents, documents.path),
        stored_bytes=_stored_bytes(artifact, work),
    )


def _decoding(work: Work, choice: Any, tokenizer: Any, dtype: str | None) -> Decoding | None:
    """The chosen decoding, with the models its options name."""
    from harness.model.artifact import load_model

    if choice is None:
        return None
    decoding: Decoding = choice.build()
    models: dict[str, Any] = {}
    for name, artifact in work.inputs.items():
        axis, _, option = name.partition(".")
        if axis == "decoding":
            loaded = load_model(artifact, work.load, device=work.device, dtype=dtype)
            same_tokens(tokenizer, loaded.tokenizer, where=name)
            models[option] = loaded.model.eval()
    decoding.models = models
    return decoding


def same_tokens(tokenizer: Any, other: Any, *, where: str) -> None:
    """Two models that read the same ids must mean the same tokens by them.

    Raises: IncompatibleError naming the first token that differs
    """
    ours, theirs = tokenizer.get_vocab(), other.get_vocab()
    differs = [token for token, index in ours.items() if theirs.get(token) != index]
    if differs or len(ours) != len(theirs):
        example = f", e.g. {differs[0]!r}" if differs else ""
        raise IncompatibleError(
            f"{where}: its tokenizer is another one ({len(theirs)} tokens against {len(ours)}{example}); "
            "name a model with the same tokenizer"
        )


def _judge(work: Work, choice: Any) -> Judge | None:
    """The chosen judge, with the models its options name and the cell's own reward model."""
    from harness.model.scorer import load_scorer

    if choice is None:
        return None
    judge: Judge = choice.build()
    judge.kept = work.checkpoints / "verdicts.jsonl"
    if any(option.metadata.get("model_ref") for option in fields(choice.config)):
        judge.scorers = {
            name.rpartition(".")[2]: load_scorer(artifact, work.load, device=work.device)
            for name, artifact in work.inputs.items()
            if name == "reward" or name.startswith("judge.")
        }
    return judge


def window(model: Any) -> int:
    """The longest sequence a model states that it reads, in tokens."""
    from harness.ops.extension import stated_length

    return stated_length(model) or UNSTATED


def _documents(path: Path, split: str) -> list[Document]:
    from harness.data.documents import read

    return list(read(path, split))


def _stored_bytes(artifact: Artifact, work: Work) -> int:
    """Bytes of the weight files of an artifact and of what it builds on."""
    suffixes = {".safetensors", ".bin", ".gguf", ".pt"}
    files = [path for path in artifact.path.rglob("*") if path.suffix in suffixes]
    total = sum(path.stat().st_size for path in files)
    stated = artifact.path / "model.json"
    card = json.loads(stated.read_text()) if stated.exists() else {}
    base = (card.get("base") or {}).get("key")
    if base and card.get("delta") in ("none", "adapter"):
        total += _stored_bytes(work.load(base), work)
    return total


@hookimpl
def harness_stages() -> list[type[Stage]]:
    return [Evaluate]
