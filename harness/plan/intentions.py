"""What an experiment means to compare and to claim, held against what it varies and measures."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.axes.evaluator import Evaluator
from harness.compose import Cell, Experiment, options_of
from harness.errors import ConfigError, UnknownNameError
from harness.plan import claims
from harness.plan.factors import Factor, Level, Request, factors, is_key, request
from harness.plan.grammar import label_text
from harness.registry.known import registry


def refuse_unknown_factors(declared: Experiment, asked: Request) -> None:
    """Refuse a key that is neither a factor of a chosen experiment nor known otherwise; say what that varies.

    Raises: ConfigError
    """
    found = factors(declared, request([]))
    for item in (*asked.plain, *asked.swept):
        plain = item.key[0] not in "+~" and "." not in item.key
        known = not plain or item.key in declared.factors or is_key(item.key)
        if found and not known and not options_of(item.key):
            raise ConfigError(
                f"No factor and no config key is called '{item.key}'. experiment={declared.name} varies "
                f"{'; '.join(map(_in_words, found))}. Choose levels by name, e.g. {_example(found[0])}"
            )


def _in_words(factor: Factor) -> str:
    return f"{factor.name} ({', '.join(map(_label, factor.levels))})"


def _label(level: Level) -> str:
    return f"'{level.label}'" if "," in level.label else level.label


def _example(factor: Factor) -> str:
    """How two levels of a factor are chosen on a command line."""
    text = f"{factor.name}={','.join(map(_label, factor.levels[:2]))}"
    return f'"{text}"' if " " in text else text


def settled_baseline(
    experiment: Experiment, found: Sequence[Factor], *, declared: Experiment
) -> tuple[Experiment, list[str]]:
    """The experiment with a baseline among the levels that are asked for, and notes on what was left out.

    A level that the command line left out of those `declared` is no mistake: of a factor with one level left,
    that one stands in.
    Raises: UnknownNameError for a factor or level that the experiment does not have
    """
    known = known_levels((declared, experiment), found)
    notes, baseline = [], {}
    for name, level in experiment.baseline.items():
        label = label_text(level)
        _refuse_unknown({name: label}, known, where="baseline")
        asked = [item.label for factor in found if factor.name == name for item in factor.levels]
        if label in asked:
            baseline[name] = level
        elif len(asked) == 1:
            baseline[name] = asked[0]
        elif asked:
            notes.append(
                f"baseline {name}={label} is not among the levels asked for ({', '.join(asked)}): nothing is "
                f"tested against it; add it, or state {shlex.quote(f'baseline={{{name}: {asked[0]}}}')}"
            )
    return replace(experiment, baseline=baseline), notes


def check_claims(
    experiment: Experiment, found: Sequence[Factor], cells: Iterable[Cell], *, declared: Experiment
) -> list[str]:
    """Notes on claims about what these cells do not measure.

    Raises: ConfigError for a claim that does not parse; UnknownNameError for a factor, level or metric that
        nothing has
    """
    known = known_levels((declared, experiment), found)
    chosen = {choice.method.name: choice.config for cell in cells for choice in cell.choices("evaluator")}
    notes = []
    for place, raw in enumerate(experiment.claims):
        try:
            claim = claims.parse(str(claims.stated(raw)["says"]))
        except ConfigError as error:
            raise ConfigError(f"claims.{place}: {error}") from error
        for _, term in claim.terms():
            _refuse_unknown(term.where, known, where=f"claim '{claim}'")
            if not _is_known(term.metric, chosen, where=f"claim '{claim}'"):
                notes.append(f"claim '{claim}' stays undecided: no chosen evaluator measures {term.metric}")
    return list(dict.fromkeys(notes))


def check_primary(experiment: Experiment, cells: Iterable[Cell]) -> list[str]:
    """Notes on metrics to decide on that these cells do not measure.

    Raises: UnknownNameError for one that nothing has
    """
    return [
        f"primary {metric} decides nothing: no chosen evaluator measures it"
        for metric in unmeasured(experiment.primary, cells, where="primary")
    ]


def unmeasured(metrics: Iterable[str], cells: Iterable[Cell], *, where: str) -> list[str]:
    """Those of some metrics that no chosen evaluator measures.

    Raises: UnknownNameError for one that nothing has
    """
    chosen = {choice.method.name: choice.config for cell in cells for choice in cell.choices("evaluator")}
    return [metric for metric in metrics if not _is_known(metric, chosen, where=where)]


def _is_known(metric: str, chosen: Mapping[str, Any], *, where: str) -> bool:
    """Whether a fact, or a metric that an evaluator with these options measures.

    Raises: UnknownNameError for a metric that nothing has
    """
    if _is_fact(metric) or _measured(metric, chosen):
        return True
    every: dict[str, Any] = {**dict.fromkeys(registry().methods("evaluator")), **chosen}
    if not _measured(metric, every, guess=False):
        names = sorted({full for full, _ in _metrics(every)})
        raise UnknownNameError(what=f"metric (in {where})", name=metric, known=names)
    return False


def known_levels(stated: Iterable[Experiment], found: Sequence[Factor]) -> dict[str, set[str]]:
    """Levels by factor: those that are stated, and those the command line asks for."""
    known: dict[str, set[str]] = {}
    for factor in (*(f for experiment in stated for f in factors(experiment, request([]))), *found):
        known.setdefault(factor.name, set()).update(level.label for level in factor.levels)
    return known


def _refuse_unknown(where_levels: Mapping[str, str], known: Mapping[str, set[str]], *, where: str) -> None:
    for name, label in where_levels.items():
        if name not in known:
            raise UnknownNameError(what=f"factor (in {where})", name=str(name), known=known)
        if label not in known[name]:
            raise UnknownNameError(what=f"level of factor {name} (in {where})", name=label, known=known[name])


def _is_fact(reference: str) -> bool:
    """Whether a name is of what a stage itself measured (`instruct.peak_memory`): only its run tells more."""
    stage, _, rest = reference.partition(".")
    return bool(rest) and stage.partition("@")[0] in registry().stages


def _measured(reference: str, evaluators: Mapping[str, Any], *, guess: bool = True) -> bool:
    """Whether an evaluator with these options (None: its own) reports a metric of that name.

    `guess` says yes where only the run tells what a task's metrics are
    """
    for full, is_open in _metrics(evaluators):
        parts = full.split(".")
        tails = [".".join(parts[i:]) for i in range(len(parts))]
        if reference in tails or any(reference.startswith(f"{tail}.") for tail in tails):
            return True
        if guess and is_open and "." not in reference:
            return True
    return False


def _metrics(evaluators: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Names in full, `<evaluator>.<task>.<metric>`; where only the run tells the metrics, those of tasks."""
    for name, config in evaluators.items():
        method = registry().get("evaluator", name)
        assert issubclass(method, Evaluator)
        config = method.Config() if config is None else config
        for task in dict.fromkeys((*method.tasks(config), *method.known_tasks())):
            metrics = method.metrics(config, task)
            if metrics is None:
                yield f"{name}.{task}", True
            for metric in metrics or ():
                yield f"{name}.{task}.{metric}", False
