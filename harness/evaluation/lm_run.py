"""Running lm-eval's evaluator on a Subject, and reading metrics, errors and samples off its result."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from lm_eval.evaluator import evaluate

from harness.axes.evaluator import Evaluation, Metric, Subject
from harness.evaluation.lm import SubjectLM

RESAMPLES = 200
"""Bootstrap resamples for metrics that are no mean over items."""


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


def run_tasks(
    loaded: dict[str, Any], subject: Subject, *, limit: int | None, num_fewshot: int | None, batch_tokens: int
) -> Evaluation:
    """Metrics and samples of loaded tasks; a group yields its own metrics too."""
    for task in loaded["tasks"].values():
        stated = task.get_config("num_fewshot")
        if num_fewshot is not None and stated != 0:
            task.set_config(key="num_fewshot", value=num_fewshot)
        elif stated is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)
    random.seed(0)
    lm = SubjectLM(subject, batch_tokens=batch_tokens)
    result = evaluate(
        lm=lm,
        task_dict=loaded,
        limit=limit,
        bootstrap_iters=0,  # its errors are the string "N/A" then; ours follow
        log_samples=True,
        apply_chat_template=subject.template is not None,
        fewshot_as_multiturn=subject.template is not None,
    )
    assert result is not None
    samples: dict[str, list[dict[str, Any]]] = result["samples"]
    metrics = []
    for name, values in result["results"].items():
        better = result["higher_is_better"].get(name, {})
        task = loaded["tasks"].get(name)
        rows = samples.get(name, [])
        for key, value in values.items():
            metric, _, kind = key.partition(",")
            if not kind or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            items = [row[metric] for row in rows if row["filter"] == kind and metric in row]
            metrics.append(
                Metric(
                    task=name,
                    metric=metric if kind == "none" else f"{metric}.{kind}",
                    value=float(value),
                    higher_is_better=bool(better.get(metric, True)),
                    stderr=standard_error(items, task.aggregation()[metric]) if task else None,
                    n=len(items) or sum(len(rows) for rows in samples.values()),
                )
            )
    frame = pd.DataFrame([row for name, rows in samples.items() for row in _merged(name, rows)])
    facts = {
        "evaluator_version": f"lm-eval {_version()}",
        "task_versions": {name: str(version) for name, version in result["versions"].items()},
        "num_fewshot": dict(result["n-shot"]),
        "template": subject.template is not None,
        **lm.facts,
    }
    return Evaluation(metrics=metrics, samples=frame, facts=facts)


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


def _version() -> str:
    from importlib.metadata import version

    return version("lm-eval")
