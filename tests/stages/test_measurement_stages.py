"""The stages generate and evaluate on a Hugging Face Llama, through their artifacts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import tiny_models as tiny
import torch

from harness.compose import compose
from harness.conformance._language import documents
from harness.data import documents as documents_file
from harness.stage import Work
from harness.stages.evaluate import Evaluate, load_subject
from harness.stages.generate import Generate

SMALL = [
    "evaluator=[perplexity,lm_eval,win_rate]",
    "evaluator.perplexity.max_documents=4",
    "evaluator.perplexity.max_bytes=64",
    "evaluator.lm_eval.tasks=[recall,completion]",
    "evaluator.lm_eval.limit=4",
    "evaluator.win_rate.max_prompts=3",
    "evaluator.win_rate.max_new_tokens=4",
    "generate.max_prompts=3",
    "generate.max_new_tokens=4",
]


class Bench:
    """A pretrained model and test documents, on which parts are measured."""

    def __init__(self, root: Path) -> None:
        self.shelf = tiny.Shelf(root / "shelf")
        self.directory = tiny.pretrained(root / "hf")
        self.inputs: dict[str, Any] = {"documents": self.shelf.new("documents", "documents")}
        documents_file.write(self.inputs["documents"].path, documents("test"))
        self.inputs["model"] = self.model("model", self.directory)

    def model(self, key: str, directory: Path) -> tiny.FakeArtifact:
        return tiny.FakeArtifact(key=key, path=directory)

    def cell(self, *overrides: str) -> Any:
        return compose(["model=pretrained", f"model.path={self.directory}", *SMALL, *overrides])

    def work(self, stage: type[Any], part: str, *overrides: str) -> Work:
        cell = self.cell(*overrides)
        choices: dict[str, Any] = {"evaluator": cell.choices("evaluator")}
        choices |= {axis: cell.choice(axis) for axis in ("judge", "decoding")}
        out = self.shelf.new(f"{len(self.shelf.artifacts)}-{part}", stage.produces)
        return Work(
            stage=stage.name,
            maker=stage,
            part=part,
            config=cell.stage_config(stage.name),
            choices=stage.narrow(part, {axis: choices[axis] for axis in stage.axes}),
            inputs=self.inputs,
            seed=0,
            device="cpu",
            out=out.path,
            checkpoints=out.path,
            load=self.shelf.load,  # type: ignore[arg-type]
            model_path=cell.model_path(),
            spec=cell.spec,
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_every_evaluator_and_task_is_a_part(bench: Bench) -> None:
    assert Evaluate.parts(bench.cell()) == [
        "perplexity.perplexity",
        "lm_eval.recall",
        "lm_eval.completion",
        "win_rate.win_rate",
    ]


def test_a_part_depends_on_its_own_task_and_axes_alone(bench: Bench) -> None:
    first = bench.work(Evaluate, "lm_eval.recall").choices
    more = bench.work(
        Evaluate, "lm_eval.recall", "evaluator.lm_eval.tasks=[copy,recall]", "decoding=beam"
    ).choices
    assert first == more
    assert set(bench.work(Evaluate, "win_rate.win_rate").choices) == {"evaluator", "judge", "decoding"}


@pytest.mark.parametrize("part", ["perplexity.perplexity", "lm_eval.completion", "win_rate.win_rate"])
def test_a_measurement_leaves_metrics_and_samples(bench: Bench, part: str) -> None:
    work = bench.work(Evaluate, part)
    facts = Evaluate().run(work)
    evaluator, _, task = part.partition(".")
    metrics = json.loads((work.out / "metrics.json").read_text())
    assert facts["metrics"] == metrics
    assert {(metric["evaluator"], metric["task"]) for metric in metrics} == {(evaluator, task)}
    samples = pd.read_parquet(work.out / "samples.parquet")
    assert {"task", "doc_hash"} <= set(samples.columns)
    json.dumps(facts)


def test_a_model_against_itself_draws(bench: Bench) -> None:
    bench.inputs["evaluator.win_rate.baseline"] = bench.model("baseline", bench.directory)
    facts = Evaluate().run(bench.work(Evaluate, "win_rate.win_rate"))
    assert facts["metrics"][0]["value"] == 0.5
    assert facts["against"] == "model"


def test_a_decoding_gets_the_model_its_option_names(bench: Bench) -> None:
    bench.inputs["decoding.draft"] = bench.model("draft", bench.directory)
    work = bench.work(Evaluate, "win_rate.win_rate", "decoding=speculative")
    decoding = load_subject(work, work.inputs["model"]).decoding
    assert decoding is not None
    assert list(decoding.models) == ["draft"]


def test_a_model_is_measured_in_the_format_that_is_asked(bench: Bench) -> None:
    """Weights and the draft's are cast, frequencies of rotary positions are not."""
    bench.inputs["decoding.draft"] = bench.model("draft", bench.directory)
    work = bench.work(Evaluate, "win_rate.win_rate", "decoding=speculative")
    stored, low = (load_subject(work, work.inputs["model"], dtype=dtype) for dtype in (None, "bfloat16"))
    assert {p.dtype for p in stored.model.parameters()} == {torch.float32}
    assert low.decoding is not None
    for model in (low.model, *low.decoding.models.values()):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    frequencies = {n: b.dtype for n, b in low.model.named_buffers() if b.is_floating_point()}
    assert frequencies == {n: b.dtype for n, b in stored.model.named_buffers() if b.is_floating_point()}
    assert set(frequencies.values()) == {torch.float32}


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_stage_measures_in_the_format_of_its_config(
    bench: Bench, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str | None] = []

    def load(*arguments: Any, dtype: str | None, **options: Any) -> Any:
        seen.append(dtype)
        return load_subject(*arguments, dtype=dtype, **options)

    monkeypatch.setattr("harness.stages.evaluate.load_subject", load)
    Evaluate().run(bench.work(Evaluate, "perplexity.perplexity", f"evaluate.dtype={dtype}"))
    assert seen == [dtype]


def test_the_size_on_disk_is_that_of_the_weight_files(bench: Bench) -> None:
    subject = load_subject(bench.work(Evaluate, "perplexity.perplexity"), bench.inputs["model"])
    assert subject.stored_bytes == (bench.directory / "model.safetensors").stat().st_size


def test_answers_are_kept_with_their_prompts(bench: Bench) -> None:
    work = bench.work(Generate, "")
    facts = Generate().run(work)
    rows = pd.read_parquet(work.out / "generations.parquet")
    assert list(rows.columns) == ["id", "prompt", "answer", "target", "tokens"]
    assert facts["prompts"] == len(rows) == 3
    assert facts["tokens"] == rows["tokens"].sum() <= 12


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluator.lm_eval.tasks=[recal]", "Did you mean 'recall'"),
        ("evaluator.lm_eval.limit=0", "at least 1"),
        ("evaluator.perplexity.split=train", "must be validation or test"),
        ("decoding=contrastive_decoding", "needs a second model"),
        ("judge=reward_model", "train one in this cell"),
    ],
)
def test_bad_choices_are_refused_before_anything_runs(bench: Bench, override: str, message: str) -> None:
    from harness.errors import ConfigError

    try:
        cell = bench.cell(override)
        chosen = [*cell.choices("evaluator"), cell.choice("judge"), cell.choice("decoding")]
        problems = [str(p) for choice in chosen for p in choice.method.check(choice.config, cell, None)]
    except ConfigError as error:
        problems = [str(error)]
    assert any(message in problem for problem in problems), problems
