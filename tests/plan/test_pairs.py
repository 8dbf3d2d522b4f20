"""Methods of different axes, crossed: what the plan accepts runs, what it refuses says why.

Conformance tries each method against the defaults; users cross them. Rows of a covering array over the
registry are drawn with a seed that changes by the week (`HARNESS_PAIRS_SEED` fixes it). What the plan refuses
is taken back, one choice at a time, until it accepts the row. Triples are drawn likewise: three methods, each
with an option that is not its default, everything else as it is. The pairs and triples that ran, and what was
refused with its reason, are kept in pytest's cache (`.pytest_cache/d/harness/pairs`).
"""

from __future__ import annotations

import os
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.axes import MODEL_AXES
from harness.commands.sweep import run
from harness.errors import ConfigError, HarnessError
from harness.method import Method
from harness.plan.make import make_plan
from harness.plan.plan import Plan, directory
from harness.registry.index import has_extra
from harness.registry.known import registry
from harness.run.resources import Options
from harness.store import Store
from harness.store.records import read_record

from options import drawn_option  # isort: skip
from pairs import Pair, every_pair, next_row, pairs_of  # isort: skip

TOY = (
    *("scale=smoke", "model.dim=32", "model.num_heads=4", "model.head_dim=8", "model.ffn_dim=48"),
    *("model.max_length=128", "pretrain.sequence_length=32", "instruct.sequence_length=64"),
    *(
        "tokenizer.vocab_size=400",
        "device=cpu",
        "parallelism.num_processes=2",
        "precision.initial_scale=1024",
    ),
)
"""The shape, and a scale that few steps do not overflow at; an option is left out where the chosen method
lacks it."""
PROVEN = (*MODEL_AXES, "context", "peft", "quantizer")
"""Axes whose methods leave a proof of what they changed under `<axis>=<method>`."""
FAST_SECONDS = 8.0
SLOW_SECONDS = 420.0
ROW_SECONDS = 240.0


def levels() -> dict[str, list[str]]:
    """Methods by axis that can be used here: whose libraries are installed."""
    return {
        axis: [m.name for m in registry().methods(axis).values() if usable(m)] for axis in registry().axes
    }


def usable(method: type[Method]) -> bool:
    return not method.extra or has_extra(registry().source(method).package, method.extra)


def overrides(row: dict[str, str]) -> list[str]:
    """A row as a command line, with the options of the toy shape that its methods have."""
    chosen = [
        f"{axis}=[{name}]" if registry().axes[axis].many else f"{axis}={name}" for axis, name in row.items()
    ]
    return [*chosen, *(text for text in TOY if fits(text.partition("=")[0], row))]


def fits(key: str, row: dict[str, str]) -> bool:
    axis, _, option = key.partition(".")
    if axis not in registry().axes:
        return True
    name = row.get(axis, registry().axes[axis].default)
    if name in ("byte", "single"):  # they have the option of their axis, and refuse any value but their own
        return False
    return option in registry().get(axis, str(name)).Config.__dataclass_fields__


def refusal(given: list[str], store: Store) -> tuple[Plan | None, str]:
    """The plan of a command line, or why it is refused; anything but a reason is a defect."""
    try:
        made = make_plan(given, store=store, single=True)
    except HarnessError as error:
        return None, str(error)
    (cell,) = made.cells
    return (None, cell.refused) if cell.refused else (made, "")


def blamed(reason: str, row: dict[str, str]) -> str:
    """The axis whose choice is taken back: the first that the reason names, by itself or by its method."""
    places = {axis: re.search(rf"\b{axis}\b", reason) for axis in row}
    named = {axis: place.start() for axis, place in places.items() if place}
    named |= {axis: reason.index(name) for axis, name in row.items() if axis not in named and name in reason}
    return min(named, key=lambda axis: named[axis]) if named else min(row)


def accepted(row: dict[str, str], store: Store, refused: dict[str, str]) -> tuple[dict[str, str], Plan]:
    """The row with what the plan refuses taken back, reason by reason."""
    while True:
        made, reason = refusal(overrides(row), store)
        if made is not None:
            return row, made
        assert row, f"the defaults are refused: {reason}"
        assert reason.strip(), f"{row} is refused without a reason"
        axis = blamed(reason, row)
        refused[f"{axis}={row[axis]}"] = reason
        row = {key: name for key, name in row.items() if key != axis}


def prove(row: dict[str, str], given: list[str], made: Plan, store: Store) -> None:
    """Run a command line that chooses a row; its cell must be ok and prove what its methods changed.

    A training may diverge, and an option leave nothing to do: where the harness says so, that is an answer.
    So it is where filters leave nothing of a corpus, which is known once they have read it, and where an
    expert is shown too few of the calibration's tokens.
    """
    code = run(given, Options(timeout=ROW_SECONDS), store=store)
    record = read_record(directory(made, made.cells[0]))
    outcome = record["outcome"]
    command = "harness run " + " ".join(given)
    emptied = outcome["stage"] == "corpus" and outcome["status"] == "incompatible"
    shown_little = outcome["stage"] == "quantize" and row.get("feed_forward", "").startswith("moe")
    shown_little = shown_little and "raise quantize.calibration_sequences" in outcome["reason"]
    late = given != overrides(row) and outcome["status"] in ("diverged", "incompatible")
    if emptied or shown_little or late:
        assert outcome["reason"], command
        return
    assert (code, outcome["status"]) == (0, "ok"), f"{outcome['stage']}: {outcome['reason']}\n{command}"
    proofs = {name for stage in record["effects"].values() for name in stage}
    stages = {made.graph.nodes[key].stage for key in made.cells[0].keys}
    for axis in PROVEN:
        choice = made.cells[0].cell.choice(axis)
        acts = any(axis in registry().stage(stage).axes for stage in stages)
        if choice is not None and acts and axis in row and choice.method.name != "full":
            assert f"{axis}={choice.method.name}" in proofs, (
                f"no proof of {axis}={choice.method.name}\n{command}"
            )


def rows(seed: int, seen: set[Pair]) -> Iterator[dict[str, str]]:
    every = levels()
    uncovered = every_pair(every) - seen
    draw = random.Random(seed)
    while uncovered:
        row = next_row(every, uncovered, draw)
        uncovered -= pairs_of(row)
        yield row


def seed() -> int:
    return int(os.environ.get("HARNESS_PAIRS_SEED", time.time() // (7 * 86400)))


def cross(request: Any, root: Path, *, seconds: float, runs: bool) -> None:
    """Plan rows, and run them where asked, until the time is over; keeps what was seen."""
    cache = request.config.cache
    kept: dict[str, Any] = cache.get("harness/pairs", {"ran": [], "refused": {}})
    ran, refused = {(first, second) for first, second in kept["ran"]}, dict(kept["refused"])
    store, end = Store(root), time.monotonic() + seconds
    for wanted in rows(seed(), ran):
        row, made = accepted(wanted, store, refused)
        if runs:
            prove(row, overrides(row), made, store)
            ran |= pairs_of(row)
        cache.set("harness/pairs", {**kept, "ran": sorted(ran), "refused": refused})
        if time.monotonic() > end:
            return


def triple(every: dict[str, list[str]], draw: random.Random) -> tuple[dict[str, str], list[str]]:
    """Three methods of three axes, and an option of each that has one."""
    row = {axis: draw.choice(every[axis]) for axis in draw.sample([a for a in every if every[a]], 3)}
    typed = []
    for axis, name in row.items():
        option = drawn_option(registry().get(axis, name), draw)
        if option is not None:
            place = f"{axis}.{name}" if registry().axes[axis].many else axis
            typed.append(f"{place}.{option[0]}={option[1]}")
    return row, typed


def cross_triples(request: Any, root: Path, *, seconds: float, runs: bool) -> None:
    """Plan triples, and run them where asked, until the time is over; keeps what was seen."""
    cache = request.config.cache
    kept: dict[str, Any] = {"ran": [], "refused": {}, "triples": [], **(cache.get("harness/pairs", {}) or {})}
    draw, every = random.Random(seed()), levels()
    store, end = Store(root), time.monotonic() + seconds
    while time.monotonic() < end:
        row, typed = triple(every, draw)
        keys = {text.partition("=")[0] for text in typed}
        toy = [text for text in overrides(row) if text.partition("=")[0] not in keys]
        words = " ".join(f"{axis}={name}" for axis, name in row.items()) + " " + " ".join(typed)
        if words in kept["triples"]:
            continue
        made, reason = refusal([*toy, *typed], store)
        if made is None:
            assert reason.strip(), f"{words} is refused without a reason"
            kept["refused"][words] = reason
        elif runs:
            prove(row, [*toy, *typed], made, store)
            kept["triples"].append(words)
        cache.set("harness/pairs", kept)


def test_rows_cover_every_pair() -> None:
    few = {"a": ["1", "2", "3"], "b": ["x", "y"], "c": ["p", "q"]}
    uncovered, draw, count = every_pair(few), random.Random(0), 0
    assert len(uncovered) == 3 * 2 + 3 * 2 + 2 * 2
    while uncovered:
        row = next_row(few, uncovered, draw)
        assert pairs_of(row) & uncovered
        uncovered -= pairs_of(row)
        count += 1
    assert 6 <= count <= 9, "at least as many rows as the two longest factors have pairs"


def test_rows_of_methods_are_planned_or_refused_with_a_reason(request: Any, tmp_path: Path) -> None:
    cross(request, tmp_path, seconds=FAST_SECONDS, runs=False)


@pytest.mark.slow
def test_rows_that_the_plan_accepts_run_and_prove_their_effects(request: Any, tmp_path: Path) -> None:
    cross(request, tmp_path, seconds=SLOW_SECONDS, runs=True)


def test_triples_with_options_are_planned_or_refused_with_a_reason(request: Any, tmp_path: Path) -> None:
    cross_triples(request, tmp_path, seconds=FAST_SECONDS, runs=False)


@pytest.mark.slow
def test_triples_that_the_plan_accepts_run_and_prove_their_effects(request: Any, tmp_path: Path) -> None:
    cross_triples(request, tmp_path, seconds=SLOW_SECONDS, runs=True)


CROSSED = [
    "attention=multi_head_latent stabilizer=[qk_norm] model.head_dim=32 model.num_heads=2 model.dim=64",
]


@pytest.mark.parametrize("words", CROSSED)
def test_pairs_that_once_were_planned_and_crashed(words: str, tmp_path: Path) -> None:
    given = ["scale=smoke", "stages=[corpus,tokenizer,tokens,pretrain]", *words.split()]
    store = Store(tmp_path)
    try:
        made = make_plan(given, store=store, single=True)
    except ConfigError:
        return
    if not made.cells[0].refused:
        assert run(given, store=store) == 0
