"""lm-eval's controls through our evaluator, against lm-eval's own simple_evaluate on its `hf` model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import turns
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from harness.axes.evaluator import Evaluation
from harness.conformance._language import model, subject, tokenizer
from harness.errors import IncompatibleError, TaskError
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


@pytest.mark.parametrize("shots", turns.fast([0, 2], [2]))
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


def test_another_name_for_the_length_of_answers_wins_too(folder: Path) -> None:
    found = ours(folder, "write", gen_kwargs={"max_new_tokens": 3})
    check(found, theirs(folder, "write", gen_kwargs={"max_gen_toks": 3}))


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


def test_results_have_the_fields_of_lm_evals_own_run(folder: Path) -> None:
    """What its viewers read: all of `lm_eval.result_schema` that a run on its `hf` model has."""
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.result_schema import EvalResults, SampleResult

    tracker = EvaluationTracker(output_path=str(folder / "theirs"))
    options = {"system_instruction": "Be brief.", "apply_chat_template": True}
    expected = theirs(folder, "both", evaluation_tracker=tracker, **options)
    tracker.save_results_aggregated(
        results={name: value for name, value in expected.items() if name != "samples"},
        samples=expected["samples"],
    )
    tracker.save_results_samples("first", expected["samples"]["first"])
    ours(folder, "both", system_instruction="Be brief.", chat_template=True)
    mine, other = (
        json.loads(next((folder / name).rglob("results_*.json")).read_text()) for name in ("out", "theirs")
    )
    assert other.keys() <= mine.keys()
    assert mine.keys() - other.keys() == set()
    assert other["config"].keys() <= mine["config"].keys()
    for name in ("results", "groups", "group_subtasks", "versions", "n-shot", "n-samples", "task_hashes"):
        assert mine[name].keys() == other[name].keys()
    same = ("group_subtasks", "versions", "n-shot", "n-samples", "higher_is_better", "task_hashes")
    same += ("system_instruction", "system_instruction_sha", "chat_template_sha", "eot_token_id")
    assert {name: mine[name] for name in same} == {name: other[name] for name in same}
    assert mine.keys() <= EvalResults.__annotations__.keys()
    rows = [
        json.loads(next((folder / name).rglob("samples_first_*.jsonl")).read_text().splitlines()[0])
        for name in ("out", "theirs")
    ]
    assert rows[0].keys() == rows[1].keys() >= SampleResult.__annotations__.keys()
    assert rows[0]["arguments"] == rows[1]["arguments"]


SHUFFLED = """import random


def shuffle(dataset):
    return dataset.map(lambda row: {"choices": random.sample(row["choices"], len(row["choices"]))})
"""


def test_documents_that_a_task_shuffles_are_those_of_lm_eval(folder: Path) -> None:
    """By the global random state, which it seeds before it loads a task; ours is left as it was."""
    import random

    import datasets

    datasets.disable_caching()
    (folder / "shuffled.py").write_text(SHUFFLED)
    text = CHOICE.format(name="first", data=folder / "first.json")
    (folder / "first.yaml").write_text(text + "process_docs: !function shuffled.shuffle\n")
    random.seed(5)
    before = random.getstate()
    found = ours(folder, "first", limit=4)
    assert random.getstate() == before
    random.seed(7)
    check(found, theirs(folder, "first", limit=4))
    assert found.samples["doc_hash"].tolist() == [
        sample["doc_hash"] for sample in theirs(folder, "first", limit=4)["samples"]["first"]
    ]


def test_more_examples_than_there_are_are_refused(folder: Path) -> None:
    with pytest.raises(TaskError, match="num_fewshot=20: task 'first' has 7 examples"):
        ours(folder, "first", num_fewshot=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_gen_toks": 0}, "max_gen_toks=0 must be at least 1"),
        ({"max_length": 30}, "max_length counts the prompt"),
        ({"temprature": 1}, "did you mean 'temperature'"),
        ({"until": [""]}, "an empty stop string would end every answer"),
        ({"max_gen_toks": 256}, "answers of 256 tokens leave no room for a prompt in a window of 256"),
    ],
)
def test_options_of_generation_that_cannot_be_are_refused_by_the_plan(
    options: dict[str, Any], message: str
) -> None:
    from harness.compose import compose, publish
    from harness.plan.problems import problems

    publish()
    given = [f"+evaluator.lm_eval.gen_kwargs.{name}={value}" for name, value in options.items()]
    if "until" in options:
        given = ["+evaluator.lm_eval.gen_kwargs.until=['']"]
    found = [str(problem) for problem in problems(compose(["evaluator=[lm_eval]", *given]))]
    assert any(message in problem for problem in found), found


def test_controls_that_no_task_takes_are_refused() -> None:
    kind: Any = registry().get("evaluator", "lm_eval")
    assert kind.idle(kind.Config(tasks=["recall"], gen_kwargs={"max_gen_toks": 4})).keys() == {"gen_kwargs"}
    assert not kind.idle(kind.Config(tasks=["recall", "instruction_following"], gen_kwargs={"until": ["x"]}))
    assert not kind.idle(kind.Config(tasks=["recall"], num_fewshot=2))


def test_a_tasks_own_answers_must_fit_the_window(folder: Path) -> None:
    kind: Any = registry().get("evaluator", "lm_eval")
    at = {"include_path": str(folder)}
    (folder / "none.yaml").write_text("task: none_stated\nnum_fewshot: 0\ninclude: first.yaml\n")
    assert kind.longest_answer(kind.Config(tasks=["write"], **at)) == 20
    assert kind.longest_answer(kind.Config(tasks=["first"], **at)) is None
    assert kind.longest_answer(kind.Config(tasks=["write", "both"], gen_kwargs={"max_tokens": 9}, **at)) == 9
    (folder / "write.yaml").write_text((folder / "write.yaml").read_text().replace(", max_gen_toks: 20", ""))
    assert kind.longest_answer(kind.Config(tasks=["write"], **at)) == 256
    assert kind.idle(kind.Config(tasks=["none_stated"], num_fewshot=3, **at)).keys() == {"num_fewshot"}


def test_the_options_of_generate_are_found_without_importing_it() -> None:
    from transformers import GenerationConfig

    from harness.evaluation.lm_options import generation_options

    stated = GenerationConfig().to_dict().keys() - {"transformers_version"}
    assert stated <= set(generation_options())
