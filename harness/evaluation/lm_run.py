"""Running lm-eval's evaluator on a Subject, and reading metrics, errors and samples off its result."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import platform
import random
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from lm_eval.evaluator import evaluate

from harness.axes.evaluator import Evaluation, Metric, Subject
from harness.errors import TaskError
from harness.evaluation.controls import Controls
from harness.evaluation.lm import SubjectLM

RESAMPLES = 200
"""Bootstrap resamples for metrics that are no mean over items."""
SEEDS = {"random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234}
"""lm-eval's defaults."""
LM_EVAL_FOLDER = "lm_eval"
"""Below an evaluation's artifact: files as lm-eval's command line writes them, for its own viewers."""


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """lm-eval without its progress bars and notices; a cell's output is read by people and by other tools."""
    import lm_eval.api.task as lm_eval_task

    logger, bar = logging.getLogger("lm_eval"), lm_eval_task.tqdm
    level = logger.level
    logger.setLevel(logging.ERROR)
    lm_eval_task.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval_task.tqdm = bar


@contextlib.contextmanager
def seeded() -> Iterator[None]:
    """Global random states as lm-eval's simple_evaluate sets them before it loads a task, whose documents may
    be shuffled by them; afterwards they are as they were.
    """
    before, theirs = random.getstate(), np.random.get_state()
    random.seed(SEEDS["random_seed"])
    np.random.seed(SEEDS["numpy_seed"])
    try:
        with torch.random.fork_rng():
            torch.manual_seed(SEEDS["torch_seed"])
            yield
    finally:
        random.setstate(before)
        np.random.set_state(theirs)


@contextlib.contextmanager
def own_errors() -> Iterator[None]:
    """lm-eval with our standard errors for single tasks, which it pools over groups by its own formula.

    Its bootstrap starts a pool of processes and knows some aggregates only.
    """
    import lm_eval.evaluator_utils as utils

    def error_of(metric: Any, bootstrap_iters: int) -> Any:
        return functools.partial(standard_error, aggregate=metric)

    theirs = utils.stderr_for_metric
    utils.stderr_for_metric = error_of
    try:
        yield
    finally:
        utils.stderr_for_metric = theirs


def run_tasks(loaded: dict[str, Any], subject: Subject, controls: Controls) -> Evaluation:
    """Metrics and samples of tasks, loaded under `seeded` as they run; a group yields its own metrics too."""
    start = time.time()
    for task in loaded["tasks"].values():
        _configure(task, controls)
    as_trained = controls.as_trained and controls.chat_template
    lm = SubjectLM(subject, batch_tokens=controls.batch_tokens, as_trained=as_trained)
    with own_errors():
        result = evaluate(
            lm=lm,
            task_dict=loaded,
            limit=controls.limit,
            log_samples=True,
            system_instruction=controls.system_instruction,
            apply_chat_template=controls.chat_template,
            fewshot_as_multiturn=controls.fewshot_as_multiturn and controls.chat_template,
        )
    assert result is not None
    samples: dict[str, list[dict[str, Any]]] = result["samples"]
    frame = pd.DataFrame([row for name, rows in samples.items() for row in _merged(name, rows)])
    facts = {
        "evaluator_version": f"lm-eval {version('lm-eval')}",
        "task_versions": {name: str(version) for name, version in result["versions"].items()},
        "num_fewshot": dict(result["n-shot"]),
        "template": controls.chat_template,
        "answers": "as_trained" if as_trained else "lm_eval",
        **lm.facts,
    }
    if subject.out is not None:
        write_files(result, controls, lm, subject.out / LM_EVAL_FOLDER, start=start)
    return Evaluation(metrics=list(_metrics(result)), samples=frame, facts=facts)


def _configure(task: Any, controls: Controls) -> None:
    """What lm-eval's simple_evaluate changes of a task.

    Raises: TaskError where it has fewer examples than asked for
    """
    stated = task.get_config("num_fewshot")
    if controls.num_fewshot is not None and stated != 0:
        task.set_config(key="num_fewshot", value=controls.num_fewshot)
    elif stated is None:
        task.set_config(key="num_fewshot", value=0)
    if controls.gen_kwargs and task.get_config("output_type") == "generate_until":
        task.set_config(key="generation_kwargs", value=dict(controls.gen_kwargs), update=True)
    task.set_fewshot_seed(seed=controls.fewshot_seed)
    shots = task.get_config("num_fewshot") if controls.num_fewshot else 0
    if not shots:
        return
    itself = task.fewshot_cfg.split is not None and task.fewshot_cfg.split == task.config.test_split
    known = len(list(task.fewshot_docs())) - itself
    if known < shots:
        raise TaskError(
            f"evaluator.lm_eval.num_fewshot={shots}: task '{task.config.task}' has {known} examples to draw "
            "from for an item; ask for as many or fewer"
        )


def _metrics(result: dict[str, Any]) -> Iterator[Metric]:
    """Every number of lm-eval's result with its error, of tasks and of groups."""
    samples = result["samples"]
    for name, values in result["results"].items():
        better = result["higher_is_better"].get(name, {})
        counts = values.get("sample_count", {})
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            items = [row for row in samples.get(name, []) if row["filter"] == kind and metric in row]
            error = values.get(f"{metric}_stderr,{kind}")
            yield Metric(
                task=name,
                metric=metric if kind == "none" else f"{metric}.{kind}",
                value=float(value),
                higher_is_better=bool(better.get(metric, True)),
                stderr=float(error) if isinstance(error, int | float) else None,
                n=int(counts.get(key, len(items))),
            )


def write_files(
    result: dict[str, Any], controls: Controls, lm: SubjectLM, folder: Path, *, start: float
) -> None:
    """`results_*.json` and `samples_*.jsonl`, written by lm-eval's own tracker, with all fields that its
    command line writes (`lm_eval.result_schema`).

    Units: `start`, when the evaluation began, in seconds of the epoch
    """
    from lm_eval.loggers import EvaluationTracker
    from lm_eval.loggers.utils import add_tokenizer_info

    arguments = {"pretrained": lm.subject.name} if lm.subject.name else {}
    tracker = EvaluationTracker(output_path=str(folder))
    tracker.general_config_tracker.log_experiment_args(
        model_source="harness",
        model_args=arguments,
        system_instruction=controls.system_instruction,
        chat_template=lm.tokenizer.chat_template if controls.chat_template else None,
        fewshot_as_multiturn=controls.fewshot_as_multiturn and controls.chat_template,
    )
    samples = result["samples"]
    shown = {name: value for name, value in result.items() if name != "samples"}
    shown["config"] = {
        "model": "harness",
        "model_args": arguments,
        "model_num_parameters": sum(p.numel() for p in lm.model.parameters()),
        "model_dtype": str(lm.scorer.dtype),
        "model_revision": "",
        "model_sha": "",
        "batch_size": lm.batch_size,
        "batch_sizes": [],
        "device": lm.subject.device,
        "use_cache": None,
        "limit": controls.limit,
        "bootstrap_iters": RESAMPLES,
        "gen_kwargs": dict(controls.gen_kwargs),
        **SEEDS,
        "fewshot_seed": controls.fewshot_seed,
    }
    shown |= {
        "git_hash": None,
        "date": start,
        "pretty_env_info": f"Python {platform.python_version()}, torch {torch.__version__}",
        "transformers_version": version("transformers"),
        "lm_eval_version": version("lm_eval"),
        "upper_git_hash": None,
    }
    add_tokenizer_info(shown, lm)
    tracker.save_results_aggregated(results=shown, samples=samples)
    for name in result["configs"]:
        tracker.save_results_samples(task_name=name, samples=samples[name])


def standard_error(items: list[Any], aggregate: Any) -> float | None:
    """Standard error over items: of the mean in closed form, of other aggregates by bootstrap."""
    if len(items) < 2:
        return None
    if getattr(aggregate, "__name__", "") == "mean":
        return float(np.std(items, ddof=1) / math.sqrt(len(items)))
    rng = random.Random(0)
    values = []
    for _ in range(RESAMPLES):
        values.append(float(aggregate(rng.choices(items, k=len(items)))))
    return float(np.std(values, ddof=1))


def _merged(task: str, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a document; metrics of further filters become columns `metric.filter`."""
    merged: dict[int, dict[str, Any]] = {}
    for row in rows:
        first = row["arguments"][0]
        entry = merged.setdefault(
            row["doc_id"],
            {
                "task": task,
                "doc_hash": row["doc_hash"],
                "prompt": str(first[0]),
                "target": str(row["target"]),
                "answer": json.dumps(row["filtered_resps"], default=str),
            },
        )
        for metric in row["metrics"]:
            column = metric if row["filter"] == "none" else f"{metric}.{row['filter']}"
            entry[column] = _number(row[metric])
    return list(merged.values())


def _number(value: Any) -> float | str:
    return (
        float(value) if isinstance(value, bool | int | float | np.number) else json.dumps(value, default=str)
    )
