"""What every evaluator must do."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import NamedTuple

import torch

from harness.axes.evaluator import Evaluation, Evaluator
from harness.conformance._language import model, subject

AXIS = "evaluator"


class Measured(NamedTuple):
    """One task measured twice, and whether model and random state stayed as they were."""

    first: Evaluation
    second: Evaluation
    weights_kept: bool
    mode_kept: bool
    random_kept: bool


MEASURED: dict[type[Evaluator], Measured] = {}
"""One measurement serves all tests of a method."""


def measured(method: type[Evaluator]) -> Measured:
    """The first task under the method's trial options."""
    if method not in MEASURED:
        MEASURED[method] = measure(method)
    return MEASURED[method]


def measure(method: type[Evaluator]) -> Measured:
    """Two measurements, with what they left changed; under two seeds where it says that it draws nothing."""
    config = method.trial()
    task = method.tasks(config)[0]
    given = subject()
    options = [option.name for option in dataclasses.fields(config) if option.metadata.get("model_ref")]
    given.models = {name: functools.partial(subject, model=model(seed=9)) for name in options}
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    random = torch.get_rng_state()
    seeds = (given.seed, given.seed if method.draws else given.seed + 1)
    found = [method(config).evaluate(task, dataclasses.replace(given, seed=seed)) for seed in seeds]
    kept = all(torch.equal(value, before[name]) for name, value in given.model.state_dict().items())
    same = torch.equal(random, torch.get_rng_state())
    return Measured(found[0], found[1], kept, not given.model.training, same)


def test_every_task_has_a_name_of_its_own(method: type[Evaluator]) -> None:
    tasks = list(method.tasks(method.trial()))
    assert tasks, "at least one task"
    assert len(set(tasks)) == len(tasks), f"two tasks have one name: {tasks}"
    assert all(isinstance(task, str) and task for task in tasks), "a task's name is text and not empty"


def test_one_task_depends_on_no_other(method: type[Evaluator]) -> None:
    config = method.trial()
    for task in method.tasks(config):
        assert task in method.tasks(method.only(config, task)), "`only` keeps the task it is asked for"


def test_metrics_can_be_printed_and_tested(method: type[Evaluator]) -> None:
    metrics = measured(method).first.metrics
    assert metrics, "at least one number"
    names = [(metric.task, metric.metric) for metric in metrics]
    assert len(set(names)) == len(names), "one number a task and metric"
    for metric in metrics:
        assert isinstance(metric.value, float), f"{metric.metric} must be a float"
        assert math.isfinite(metric.value), f"{metric.metric} must be finite"
        assert metric.stderr is None or metric.stderr >= 0, f"{metric.metric}: error below 0"
        assert metric.stderr is None or metric.n > 1, f"{metric.metric}: an error needs items"


def test_samples_are_kept_by_document(method: type[Evaluator]) -> None:
    samples = measured(method).first.samples
    assert {"task", "doc_hash"} <= set(samples.columns), "columns `task` and `doc_hash`"
    assert len(samples) > 0, "no sample was kept: one row for each document"
    assert samples["doc_hash"].map(lambda value: isinstance(value, str)).all(), "`doc_hash` is text"
    for task, rows in samples.groupby("task"):
        assert len(rows) == 1 or rows["doc_hash"].nunique() > 1, (
            f"all items of {task} have one `doc_hash`: make it of the item, as paired tests join by it"
        )


def test_an_error_is_stated_where_items_differ(method: type[Evaluator]) -> None:
    found = measured(method).first
    for metric in found.metrics:
        rows = found.samples[found.samples["task"] == metric.task]
        differ = metric.metric in rows and rows[metric.metric].nunique() > 1
        assert metric.stderr != 0 or not differ, (
            f"{metric.metric} has an error of 0, and its items differ: give that over items, or None"
        )


def test_a_number_follows_from_its_items(method: type[Evaluator]) -> None:
    """Where samples have a column of a metric's name, the metric is a mean of it, weighted or not."""
    found = measured(method).first
    for metric in found.metrics:
        rows = found.samples[found.samples["task"] == metric.task]
        if metric.metric not in rows:
            continue
        values = rows[metric.metric].dropna()
        counts = {len(values), rows["doc_hash"].nunique()}
        assert not metric.n or metric.n in counts, (
            f"{metric.metric} says n={metric.n}, and {len(values)} rows of samples hold it: n counts items"
        )
        low, high = float(values.min()), float(values.max())
        assert low - 1e-6 * abs(low) <= metric.value <= high + 1e-6 * abs(high), (
            f"{metric.metric}={metric.value:g}, and its items lie between {low:g} and {high:g}"
        )
        plain = math.isclose(metric.value, values.mean(), rel_tol=1e-6) and metric.n == len(values)
        error = float(values.std(ddof=1) / len(values) ** 0.5) if plain and metric.stderr else 0.0
        assert not error or error / 2 < (metric.stderr or 0) < 2 * error, (
            f"{metric.metric} has a standard error of {metric.stderr:g}; that of its items' mean is {error:g}"
        )


def test_samples_survive_storage(method: type[Evaluator]) -> None:
    import io

    buffer = io.BytesIO()
    measured(method).first.samples.to_parquet(buffer, index=False)


def test_the_same_model_gets_the_same_numbers(method: type[Evaluator]) -> None:
    if method.surroundings(method.trial()):
        return  # a speed: it depends on the machine's mood too
    first, second = (
        {(m.task, m.metric): m.value for m in e.metrics}
        for e in (measured(method).first, measured(method).second)
    )
    assert first == second, "the same model gets other numbers at a second call: draw from subject.seed alone"


def test_the_model_is_left_as_it_was(method: type[Evaluator]) -> None:
    found = measured(method)
    assert found.weights_kept, "an evaluator changes no weight"
    assert found.mode_kept, "an evaluator leaves the model in eval mode"


def test_the_global_random_state_is_left_as_it_was(method: type[Evaluator]) -> None:
    assert measured(method).random_kept, "draw from a generator of your own"
