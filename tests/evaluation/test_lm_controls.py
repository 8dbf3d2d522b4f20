"""lm-eval's controls through our evaluator, against lm-eval's own simple_evaluate on its `hf` model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness.axes.evaluator import Evaluation
from harness.conformance._language import model, subject, tokenizer
from harness.errors import IncompatibleError
from harness.evaluation.lm_run import quiet
from harness.registry.known import registry

CHOICE = """task: {name}
tag: alike
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}, train: {data}}}}}
test_split: test
fewshot_split: train
output_type: multiple_choice
doc_to_text: "Question: {{{{question}}}}"
doc_to_choice: choices
doc_to_target: label
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
GROUP = """group: both
task: [first, second]
aggregate_metric_list:
  - {metric: acc, weight_by_size: WEIGHTED}
"""
WRITE = """task: write
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}, train: {data}}}}}
test_split: test
fewshot_split: train
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}"
doc_to_target: "{{{{choices[label]}}}}"
generation_kwargs: {{until: ["Question:"], max_gen_toks: 20}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true}}
filter_list:
  - name: first
    filter: [{{function: regex, regex_pattern: "(.)"}}, {{function: take_first}}]
  - name: last
    filter: [{{function: regex, regex_pattern: "(.)", group_select: -1}}, {{function: take_first}}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("first", 7), ("second", 3), ("write", 5)):
        rows = [
            {"question": f"{name} {i}?", "choices": ["yes", "no", "maybe so"], "label": i % 3}
            for i in range(count)
        ]
        data = tmp_path / f"{name}.json"
        data.write_text("\n".join(map(json.dumps, rows)))
        (tmp_path / f"{name}.yaml").write_text(
            (WRITE if name == "write" else CHOICE).format(name=name, data=data)
        )
    (tmp_path / "both.yaml").write_text(GROUP.replace("WEIGHTED", "true"))
    (tmp_path / "mean.yaml").write_text(GROUP.replace("WEIGHTED", "false").replace("both", "mean"))
    return tmp_path


def theirs(folder: Path, task: str, **options: Any) -> Any:
    lm = HFLM(pretrained=model(seed=1), tokenizer=tokenizer(), batch_size=4, max_length=512, device="cpu")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    with quiet():
        return lm_eval.simple_evaluate(
            model=lm, tasks=[task], task_manager=manager, **{"fewshot_as_multiturn": False, **options}
        )


def ours(folder: Path, task: str, template: str | None = None, **options: Any) -> Evaluation:
    kind = registry().get("evaluator", "lm_eval")
    config = kind.Config(tasks=[task], include_path=str(folder), trust=True, **options)
    out = folder / "out"
    return kind(config).evaluate(task, subject(model=model(seed=1), template=template, out=out))  # type: ignore[no-any-return, attr-defined]


def check(found: Evaluation, expected: Any) -> None:
    """Every value and every standard error that lm-eval states, found here."""
    seen = {(m.task, m.metric): m for m in found.metrics}
    checked = 0
    for task, values in expected["results"].items():
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if not kind or "_stderr" in metric or not isinstance(value, float):
                continue
            mine = seen[task, metric if kind == "none" else f"{metric}.{kind}"]
            assert mine.value == pytest.approx(value)
            error = values[f"{metric}_stderr,{kind}"]
            assert (mine.stderr or 0.0) == pytest.approx(error if isinstance(error, float) else 0.0)
            checked += 1
    assert checked


@pytest.mark.parametrize("group", ["both", "mean"])
def test_groups_have_the_pooled_error_and_the_number_of_their_documents(folder: Path, group: str) -> None:
    found = ours(folder, group)
    check(found, theirs(folder, group))
    (metric,) = [m for m in found.metrics if m.task == group]
    assert metric.n == 10
    assert metric.stderr
    assert {m.n for m in found.metrics if m.task == "first"} == {7}


@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("turns", [False, True])
@pytest.mark.parametrize("task", ["first", "write"])
def test_prompts_and_numbers_are_lm_evals(
    folder: Path, task: str, turns: bool, chat: bool, shots: int
) -> None:
    options = {"num_fewshot": shots, "system_instruction": "Be brief.", "fewshot_as_multiturn": turns}
    found = ours(folder, task, chat_template=chat, **options)
    other = theirs(
        folder, task, apply_chat_template=chat, **{**options, "fewshot_as_multiturn": turns and chat}
    )
    check(found, other)
    prompts = [
        sample["arguments"][0][0]
        for sample in other["samples"][task]
        if sample["filter"] in ("none", "first")
    ]
    assert found.samples["prompt"].tolist() == prompts
    assert "Be brief." in prompts[0]


def test_generation_options_win_over_a_tasks_own(folder: Path) -> None:
    options = {"max_gen_toks": 3, "until": ["e"]}
    found, other = ours(folder, "write", gen_kwargs=options), theirs(folder, "write", gen_kwargs=options)
    check(found, other)
    said = [json.loads(answer) for answer in found.samples["answer"]]
    assert said == [s["filtered_resps"] for s in other["samples"]["write"] if s["filter"] == "first"]


def test_sampled_repeats_of_a_document_differ(folder: Path) -> None:
    text = (folder / "write.yaml").read_text().replace("filter_list:", "repeats: 6\nfilter_list:")
    (folder / "write.yaml").write_text(text)
    options = {"max_gen_toks": 8, "do_sample": True, "temperature": 1.0, "until": []}
    ours(folder, "write", gen_kwargs=options)
    (file,) = (folder / "out" / "lm_eval").rglob("samples_write_*.jsonl")
    row = json.loads(file.read_text().splitlines()[0])
    assert len(set(row["resps"][0])) > 3


def test_files_are_those_of_lm_evals_command_line(folder: Path) -> None:
    from lm_eval.utils import make_table

    ours(folder, "both")
    (results,) = (folder / "out" / "lm_eval").rglob("results_*.json")
    written = json.loads(results.read_text())
    assert "acc" in make_table(written)
    assert {"results", "configs", "versions", "n-shot", "config", "n-samples"} <= written.keys()
    assert len(list((folder / "out" / "lm_eval").rglob("samples_*.jsonl"))) == 2


def test_a_chat_template_that_is_not_there_is_refused(folder: Path) -> None:
    kind = registry().get("evaluator", "lm_eval")
    bare = tokenizer()
    saved, bare.chat_template = bare.chat_template, None
    try:
        with pytest.raises(IncompatibleError, match="has no chat template"):
            kind(kind.Config(chat_template=True)).evaluate("recall", subject(tokenizer=bare))  # type: ignore[attr-defined]
    finally:
        bare.chat_template = saved
