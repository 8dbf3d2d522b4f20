"""lm-eval tasks: the offline ones, lm-eval's own on local files, and what is said of those that fail."""

from __future__ import annotations

import gzip
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness_plugins.evaluator.lm_eval import LmEval

from harness.compose import compose
from harness.conformance._language import documents, subject
from harness.errors import DataError, TaskError
from harness.evaluation.controls import Controls
from harness.evaluation.items import Source, drawing_from
from harness.evaluation.lm_run import run_tasks, standard_error
from harness.evaluation.lm_tasks import OWN, find_task, item_rows, load_task, own_tasks


def run(task: str, *, limit: int = 6, **options: Any) -> Any:
    with drawing_from(Source(documents=documents("test"), limit=limit)):
        loaded = load_task(task, **options)
        return run_tasks(loaded, subject(), Controls(limit=limit, batch_tokens=4096))


@pytest.mark.parametrize("task", own_tasks())
def test_an_offline_task_yields_metrics_and_samples(task: str) -> None:
    found = run(task)
    assert {metric.task for metric in found.metrics} == {task}
    assert len(found.samples) == 6
    assert found.samples["doc_hash"].is_unique
    assert found.facts["truncated_contexts"] == 0


def test_the_offline_tasks_are_those_the_readme_names() -> None:
    named = {"completion", "last_word", "instruction_following", "recall", "copy", "mqar", "passkey"}
    assert set(own_tasks()) == named


def test_right_answers_follow_instructions() -> None:
    from harness.data.skills import skill_items
    from harness.evaluation.items import followed

    for item in skill_items("instructions", "test", seed=0, n=20):
        doc = {"checks": json.dumps(item.checks)}
        assert followed(doc, [item.answer]) == {"followed": 1.0, "constraints_met": 1.0}
        assert followed(doc, ["?"])["followed"] == 0.0


def test_the_nats_of_a_last_word_are_the_logarithm_of_its_perplexity() -> None:
    value = {metric.metric: metric.value for metric in run("last_word").metrics}
    assert math.exp(value["nats_per_word"]) == pytest.approx(value["perplexity"])


def test_an_unknown_task_is_refused_with_a_suggestion_before_anything_runs() -> None:
    with pytest.raises(TaskError, match="Did you mean 'recall'"):
        find_task("recal")
    problems = list(LmEval.check(LmEval.Config(tasks=["recal"]), None, None))
    assert len(problems) == 1
    assert "Did you mean 'recall'" in str(problems[0])


def test_a_task_of_lm_eval_is_found_without_its_index() -> None:
    path = find_task("gsm8k")
    assert path is not None
    assert path.name == "gsm8k.yaml"


def test_a_tag_of_lm_eval_is_known_and_has_no_file() -> None:
    assert find_task("math_word_problems") is None


def test_without_a_network_a_task_says_what_to_do() -> None:
    with pytest.raises(TaskError, match=r"cannot be had without a network.*data_files\.gsm8k\.test"):
        load_task("gsm8k")


@pytest.mark.parametrize(("task", "data"), [("gsm8k", "openai/gsm8k"), ("mmlu_anatomy", "cais/mmlu")])
def test_without_a_network_the_plan_refuses_a_task_whose_data_are_not_here(
    task: str, data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = compose(["evaluator=[lm_eval]", f"evaluator.lm_eval.tasks=[{task}]"])
    assert cell.offline
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    config = LmEval.Config(tasks=[task])
    (problem,) = LmEval.check(config, cell, None)
    assert f"({data} is not in the cache)" in problem.message
    assert not list(LmEval.check(replace(config, data_files={task: {"test": "some.jsonl"}}), cell, None))
    (tmp_path / data.replace("/", "___")).mkdir()
    assert not list(LmEval.check(config, cell, None))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert not compose(["scale=mini"]).offline


def test_a_local_file_replaces_a_tasks_data(tmp_path: Path) -> None:
    rows = [{"question": f"What is {n} + 1?", "answer": f"It is {n + 1}\n#### {n + 1}"} for n in range(8)]
    test = tmp_path / "test.jsonl.gz"
    test.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    found = run("gsm8k", limit=2, data_files={"train": str(test), "test": str(test)})
    assert {metric.metric for metric in found.metrics} == {
        "exact_match.strict-match",
        "exact_match.flexible-extract",
    }
    assert found.facts["num_fewshot"] == {"gsm8k": 5}
    assert "What is" in found.samples["prompt"][0]


def test_ones_own_yaml_may_not_run_code_unasked(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("task: mine\ncustom_dataset: !function mine.data\n")
    with pytest.raises(TaskError, match="trust=true"):
        load_task("mine", include_path=str(tmp_path))


def test_ones_own_yaml_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(
        "task: mine\ndataset_path: json\ntest_split: test\noutput_type: loglikelihood\n"
        'doc_to_text: "{{a}}"\ndoc_to_target: "{{b}}"\nmetric_list: [{metric: acc}]\n'
    )
    data = tmp_path / "rows.json"
    data.write_text(json.dumps({"examples": [{"a": "one", "b": "two"}, {"a": "three", "b": "four"}]}))
    found = run("mine", include_path=str(tmp_path), data_files={"test": str(data)})
    assert [metric.metric for metric in found.metrics] == ["acc"]


def test_bad_rows_name_file_and_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": 1}\n{"a": \n')
    with pytest.raises(DataError, match=r"bad\.jsonl:2: not JSON"):
        item_rows(bad)
    latin = tmp_path / "latin.jsonl"
    latin.write_bytes('{"a": "é"}'.encode("latin-1"))
    with pytest.raises(DataError, match=r"latin\.jsonl:1 is not UTF-8: byte 0xe9 at offset 7"):
        item_rows(latin)
    with pytest.raises(DataError, match="does not exist"):
        item_rows(tmp_path / "none.jsonl")


def test_rows_may_hold_separators_of_unicode_and_begin_with_a_mark(tmp_path: Path) -> None:
    text = json.dumps({"a": "one\u2028two\x85three"}, ensure_ascii=False)
    (tmp_path / "rows.ndjson").write_text(f"\ufeff{text}\r\n\r\n{text}\r\n")
    assert item_rows(tmp_path / "rows.ndjson") == [{"a": "one\u2028two\x85three"}] * 2


def test_standard_errors_are_closed_form_for_means_and_bootstrap_else() -> None:
    def mean(items: list[float]) -> float:
        return sum(items) / len(items)

    def largest(items: list[float]) -> float:
        return max(items)

    items = [0.0, 1.0, 1.0, 0.0, 1.0]
    assert standard_error(items, mean) == pytest.approx((0.3 / 5) ** 0.5)
    assert standard_error([1.0, 2.0, 3.0, 4.0], largest) > 0  # type: ignore[operator]
    assert standard_error([1.0], mean) is None


@pytest.mark.shared
def test_gsm8k_and_bbh_of_lm_eval_run_on_the_real_files(shared_data: Path) -> None:
    files = {"train": shared_data / "gsm8k_train.jsonl.gz", "test": shared_data / "gsm8k_test.jsonl"}
    found = run("gsm8k", limit=2, data_files={split: str(file) for split, file in files.items()})
    assert found.facts["truncated_contexts"] == 2  # five examples do not fit 512 bytes
    bbh = {"test": str(shared_data / "bbh" / "boolean_expressions.json")}
    found = run("bbh_zeroshot_boolean_expressions", limit=3, data_files=bbh)
    assert len(found.samples) == 3
    assert found.samples["target"].isin(["True", "False"]).all()


@pytest.mark.shared
@pytest.mark.parametrize("task", sorted(path.stem for path in (OWN / "on_files").glob("*.yaml")))
def test_the_tasks_on_files_run(
    task: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(shared_data)
    assert LmEval.reads(LmEval.Config(tasks=[task])), "its files enter the key"
    found = run(task, limit=3)
    assert len(found.samples) == 3
    (metric,) = found.metrics
    assert 0 <= metric.value <= 1


def test_the_plan_says_where_the_files_of_a_task_must_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"data/socialiqa_valid\.jsonl"):
        LmEval.reads(LmEval.Config(tasks=["socialiqa"]))
