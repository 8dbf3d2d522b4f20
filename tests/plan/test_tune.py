"""`tune:` blocks: equal trials, shared stages, validation data only, the same trials when started again."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from harness.commands.plan import tuning_lines
from harness.compose import Experiment
from harness.errors import ConfigError, UnknownNameError
from harness.plan.assemble import Assembler
from harness.plan.cells import cells
from harness.plan.factors import factors, request
from harness.plan.graph import Graph
from harness.plan.make import make_plan
from harness.plan.plan import Plan
from harness.plan.trials import Trial, Tuning
from harness.plan.tune import make_tuning
from harness.store import Store
from harness.store.records import TRIALS, write_record

RATE = "pretrain.learning_rate"
SMALL = ("scale=smoke", "corpus.max_bytes=300000", "stages=[corpus,tokenizer,tokens,pretrain,evaluate]")
RANGE = {RATE: {"low": 1e-3, "high": 1e-1, "log": True}}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(scope="module")
def assembler() -> Assembler:
    """Composes for all tests: what Hydra composed once need not be composed again."""
    return Assembler(SMALL)


@dataclass
class Sweep:
    """A sweep to be tuned, without the command line around it."""

    store: Store
    assembler: Assembler
    factors: dict[str, Any] = field(default_factory=lambda: {"optimizer": ["adamw", "lion"]})
    name: str = "tuned"

    def tuning(
        self, *, fixed: tuple[str, ...] = (), base: Any = None, asked: tuple[str, ...] = (), **block: Any
    ) -> Tuning:
        experiment = Experiment(
            name=self.name, factors=self.factors, seeds=[0, 1], tune={"trials": 3, "space": RANGE, **block}
        )
        declared, found = factors(experiment, request([])), factors(experiment, request(asked))
        planned = cells(experiment, found, seeds=[0, 1], stages=["corpus", "pretrain", "evaluate"])
        sweep = Plan(
            name=self.name,
            arguments=(),
            experiment=experiment,
            factors=found,
            cells=[],
            graph=Graph(self.store),
        )
        made = make_tuning(
            sweep, planned=planned, fixed=fixed, declared=declared, assembler=base or self.assembler
        )
        assert made is not None
        return made


@pytest.fixture
def sweep(store: Store, assembler: Assembler) -> Sweep:
    return Sweep(store, assembler)


def end(tuning: Tuning, trial: Trial, value: float | None) -> None:
    """Write the record that running a trial would write; None: it diverged."""
    metric = {
        "evaluator": "perplexity",
        "task": "perplexity",
        "metric": "bits_per_byte",
        "value": value,
        "higher_is_better": False,
    }
    status = {"status": "diverged", "reason": "the loss is nan"} if value is None else {"status": "ok"}
    nodes = tuning.graph.nodes
    record = {
        "sweep": tuning.name + TRIALS,
        "cell": trial.cell.cell.id,
        "config": {},
        "experiment": {},
        "levels": trial.cell.levels,
        "seed": trial.cell.seed,
        "stages": [{"stage": nodes[key].stage, "key": key} for key in trial.cell.keys],
        "outcome": {"reason": "", "stage": None, "step": None, **status},
        "metrics": [] if value is None else [metric],
    }
    root = tuning.graph.store.root
    write_record(root / "records" / (tuning.name + TRIALS) / trial.cell.cell.id, record)


def end_all(tuning: Tuning, *, best: float) -> list[list[float]]:
    """End trials until none follows; the loss is the distance from `best`. Points by method."""
    while not tuning.settled:
        for method in tuning.methods:
            for trial in method.trials:
                if not trial.status:
                    end(tuning, trial, 2 + abs(trial.point[RATE] - best))
        tuning.look()
    return [[trial.point[RATE] for trial in method.trials] for method in tuning.methods]


def test_the_plan_shows_trials_and_what_waits_for_them(store: Store) -> None:
    space = f"tune.space={{{RATE}:{{low:1e-3,high:1e-1,log:true}}}}"
    arguments = [*SMALL, "optimizer=adamw,lion", "seed=0,1", "tune.trials=3", space]
    made = make_plan(arguments, store=store)
    assert made.tuning is not None
    assert made.cells == []
    assert made.first.summary().startswith("6 cells, 30 stages asked, 15 to run, 0 in the store")
    assert made.tuning.describe()["pending"] == 4
    placed = pickle.loads(pickle.dumps(made.first))  # as a launcher hands it to its workers
    assert placed.summary() == made.first.summary()
    text = "\n".join(tuning_lines(made.tuning))
    assert "2 methods x 3 trials (random)" in text
    assert "0 of 6 done" in text
    assert "pending: 4 cells" in text

    end_all(made.tuning, best=0.0)
    final = make_plan(arguments, store=store)
    assert len(final.cells) == 4
    assert final.first is final
    assert final.experiment_node()["tune"]["options"] == [RATE]
    fixed = make_plan([*arguments, f"{RATE}=0.01"], store=store)
    assert fixed.tuning is None, "an option given on the command line is not tuned"
    assert len(fixed.cells) == 4


def test_trials_are_equally_many_share_stages_and_are_measured_on_validation_data(sweep: Sweep) -> None:
    tuning = sweep.tuning()
    trials = tuning.trials()
    assert [len(method.trials) for method in tuning.methods] == [3, 3]
    nodes = [trials.graph.nodes[key] for key in trials.wanted()]
    assert [node.stage for node in nodes].count("tokens") == 1
    measured = [node for node in nodes if node.stage == "evaluate"]
    assert len(measured) == 6
    assert {node.choices["evaluator"][0].config.split for node in measured} == {"validation"}  # type: ignore[index]
    assert {node.seed for node in nodes if node.stage == "pretrain"} == {0}
    end_all(tuning, best=0.0)
    asked = {key for cell in tuning.cells() for key in cell.keys}
    assert not asked & {node.key for node in measured}
    best = tuning.methods[0].best()
    assert best is not None
    (pretrained,) = (key for key in best.cell.keys if trials.graph.nodes[key].stage == "pretrain")
    assert pretrained in asked


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_starting_again_gives_the_same_trials(
    sweep: Sweep, assembler: Assembler, tmp_path: Path, search: str
) -> None:
    pytest.importorskip("optuna")
    whole = end_all(Sweep(Store(tmp_path / "other"), assembler).tuning(search=search, trials=5), best=0.02)
    tuning = sweep.tuning(search=search, trials=5)
    first = tuning.methods[0].trials[0]
    end(tuning, first, 2 + abs(first.point[RATE] - 0.02))
    again = sweep.tuning(search=search, trials=5)
    assert len(again.methods[0].trials) == (2 if search == "tpe" else 5)
    assert end_all(again, best=0.02) == whole


def test_a_best_value_on_the_edge_is_flagged_and_stands_in_the_account(sweep: Sweep) -> None:
    tuning = sweep.tuning(search="grid")
    assert end_all(tuning, best=1.0) == [[0.001, 0.01, 0.1]] * 2
    cells = tuning.cells()
    assert {cell.tuned["chosen"][RATE] for cell in cells if cell.tuned} == {0.1}
    assert cells[0].tuned is not None
    assert cells[0].tuned["edge"] == [f"{RATE}=0.1 is the highest of 3 tried"]
    assert cells[0].cell.config["pretrain"]["learning_rate"] == 0.1
    sweep.name = "inside"
    inside = sweep.tuning(search="grid")
    end_all(inside, best=0.012)
    assert inside.methods[0].edges() == []


def test_a_method_without_a_good_trial_is_refused_with_the_reason(sweep: Sweep) -> None:
    tuning = sweep.tuning(trials=2)
    for method in tuning.methods:
        for trial in method.trials:
            end(tuning, trial, None if method.levels == {"optimizer": "lion"} else 2.0)
    tuning.look()
    good, _, bad, _ = tuning.cells()
    assert not good.refused
    assert bad.refused == "tune: none of 2 trials of optimizer=lion has a value: diverged: the loss is nan"


def test_a_method_may_have_its_own_range_and_only_some_factors_be_methods(sweep: Sweep) -> None:
    sweep.factors = {"optimizer": ["adamw", "lion"], "schedule": ["cosine", "linear"]}
    own = {"optimizer": {"lion": {RATE: {"low": 1e-4, "high": 1e-2, "log": True}}}}
    tuning = sweep.tuning(methods=own, trials=2, by=["optimizer"])
    assert [method.levels for method in tuning.methods] == [{"optimizer": "adamw"}, {"optimizer": "lion"}]
    assert [method.dimensions[0].low for method in tuning.methods] == [1e-3, 1e-4]
    end_all(tuning, best=0.0)
    assert len(tuning.cells()) == 8


def test_the_range_of_a_level_that_was_not_chosen_is_left_unread(sweep: Sweep) -> None:
    own = {"optimizer": {"lion": {RATE: {"low": 1e-4, "high": 1e-3, "log": True}}}}
    tuning = sweep.tuning(asked=("optimizer=adamw",), methods=own)
    assert [method.levels for method in tuning.methods] == [{"optimizer": "adamw"}]
    assert (tuning.methods[0].dimensions[0].low, tuning.methods[0].dimensions[0].high) == (1e-3, 1e-1)
    with pytest.raises(UnknownNameError, match="No level of factor optimizer is called 'lyon'"):
        sweep.tuning(asked=("optimizer=adamw",), methods={"optimizer": {"lyon": {}}})


BAD_BLOCKS: list[tuple[dict[str, Any], str]] = [
    ({"space": {"pretrain.learning_rat": [0.1, 0.2]}}, "learning_rate"),
    ({"space": {RATE: []}}, "nothing to choose"),
    ({"space": {RATE: {"low": 0, "high": 1, "log": True}}}, "log range begins above 0"),
    ({"space": {RATE: ["fast", "slow"]}}, "learning_rate"),
    ({"space": {RATE: {"low": 0.1, "high": 1, "log": ["x"]}}}, r"learning_rate\.log=\['x'\]: write true or"),
    (
        {"methods": {"optimizer": {"lion": {RATE: {"law": 1}}}}},
        r"range tune\.methods\.optimizer\.lion\.pretrain",
    ),
    ({"space": {}}, "tune.space is empty"),
    ({"metric": "acc"}, r"No metric measured on the validation split .* is called 'acc'"),
    ({"metric": "bits_per_bite"}, "bits_per_byte"),
    ({"trials": 0}, "must be 1 or more"),
    ({"trials": 10**12, "search": "grid"}, "trials=1000000000000 must be at most 1000"),
    ({"search": "bayes"}, "search"),
    ({"by": ["optimiser"]}, "Did you mean 'optimizer'"),
    ({"methods": {"optimizer": {"leon": {}}}}, "Did you mean 'lion'"),
    ({"trails": 4}, "Did you mean 'trials'"),
    ({"search": "grid", "trials": 1}, "use one of"),
    (
        {
            "space": {RATE: [0.1, 0.2]},
            "methods": {"optimizer": {"lion": {RATE: [0.1, 0.2, 0.3]}}},
            "search": "grid",
            "trials": 0,
        },
        "same number of trials",
    ),
]


@pytest.mark.parametrize(("block", "message"), BAD_BLOCKS)
def test_a_block_that_cannot_work_is_refused_before_anything_runs(
    sweep: Sweep, block: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep.tuning(**block)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluator=[efficiency]", "is not measured: evaluator=perplexity is not chosen"),
        ("evaluator.perplexity.split=validation", "report another split"),
        ("stages=[corpus,tokenizer,tokens,pretrain]", "needs the stage evaluate"),
    ],
)
def test_a_metric_that_is_not_measured_or_would_be_reported_is_refused(
    sweep: Sweep, override: str, message: str
) -> None:
    key = override.partition("=")[0]
    base = [text for text in SMALL if text.partition("=")[0] != key]
    with pytest.raises(ConfigError, match=message):
        sweep.tuning(base=Assembler([*base, override]))


def test_an_option_is_either_a_factor_or_tuned(sweep: Sweep) -> None:
    sweep.factors = {"rate": {RATE: [0.1, 0.2]}}
    with pytest.raises(ConfigError, match="tuned and also set by a factor"):
        sweep.tuning()


@pytest.mark.slow
def test_a_killed_sweep_goes_on_with_the_same_trials(store: Store) -> None:
    command = [sys.executable, "-m", "harness", "-m", *SMALL, "optimizer=adamw", "name=killed"]
    space = f"tune.space={{{RATE}:{{low:1e-3,high:1e-1,log:true}}}}"
    # One stage at a time, so that the kill falls between trials on a machine of any size.
    command += [space, "tune.trials=3", "tune.search=random", "device=cpu", "hydra.sweeper.workers=1"]
    environment = {**os.environ, "HARNESS_STORE": str(store.root)}
    trials = store.root / "records" / f"killed{TRIALS}"
    first = subprocess.Popen(command, env=environment, start_new_session=True)
    try:
        while first.poll() is None and not list(trials.glob("*/record.json")):
            time.sleep(0.1)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert len(list(trials.glob("*/record.json"))) < 3, "killed too late to show anything"
    subprocess.run(command, env=environment, check=True)
    made: list[Any] = [store.find(key) for key in store.all_keys()]
    assert sum(artifact.stage == "pretrain" for artifact in made) == 3
    (file,) = (store.root / "records" / "killed").glob("*/record.json")
    tune = json.loads(file.read_text())["tune"]
    assert {trial["cell"] for trial in tune["trials"]} == {
        path.parent.name for path in trials.glob("*/*.json")
    }
    assert tune["value"] == min(trial["value"] for trial in tune["trials"])


def test_trials_can_be_left_out(store: Store) -> None:
    plan = make_plan(["experiment=schedule", "scale=smoke", "tune=null"], store=store)
    assert plan.tuning is None
    assert len(plan.cells) == 21
