"""Estimates against measurement: FLOPs and peak tensor bytes within 15 % of what trainings recorded."""

import gzip
import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness.axes import MODEL_AXES
from harness.axes.tokenizer import Tokenizer
from harness.commands.sweep import sweep
from harness.compose import Cell, Experiment, compose
from harness.compose.schema import model_options
from harness.errors import ConfigError
from harness.plan.costs import Costs
from harness.plan.graph import Graph
from harness.plan.make import make_plan
from harness.plan.measured import Known, bytes_per_token, data_key, tokenizer_of
from harness.plan.node import Node
from harness.plan.plan import Plan
from harness.plan.problems import shapes_of
from harness.plan.trainings import MARGIN, longest_sequence, memory_bound
from harness.run.resources import Options
from harness.store import Artifact, Store

REPORTS = sorted((Path(__file__).parents[2] / "reports").glob("*/records.json.gz"))
WITHIN = 0.15


def of_today(config: dict[str, Any]) -> dict[str, Any]:
    """A recorded config with the keys that are younger than it, at the values that it was run with."""
    lacking: dict[str, Any] = {"threads": None, "where_chosen": {}, "primary": []}
    shape = vars(model_options()())
    found: dict[str, Any] = {**lacking, **config, "model": {"fetch": None, **shape, **config["model"]}}
    if config["extend"]["sequence_length"] == 0:  # stood for the extended length
        found["extend"] = {**config["extend"], "sequence_length": None}
    return {key: _without_limits_of_0(value) for key, value in found.items()}


def _without_limits_of_0(node: Any) -> Any:
    """0 stood for no limit of these options."""
    if not isinstance(node, dict):
        return node
    limits = ("cap", "max_bytes", "max_documents", "train_bytes")
    return {
        key: None if key in limits and value == 0 else _without_limits_of_0(value)
        for key, value in node.items()
    }


def trainings(file: Path, store: Store) -> Iterator[tuple[str, Plan, Node, dict[str, Any]]]:
    """(where, plan, node, measured facts) of every training of a report, each configuration once."""
    seen = set()
    for record in json.loads(gzip.decompress(file.read_bytes()))["records"]:
        levels = tuple(record["levels"].values())
        if record["outcome"]["status"] != "ok" or levels in seen or record["config"]["model"]["path"]:
            continue  # no formula knows a checkpoint's shape
        seen.add(levels)
        try:
            cell = Cell(of_today(record["config"]))
        except ConfigError:
            continue  # a report made before an option was renamed says nothing of today's formulas
        graph = Graph(store)
        graph.add(cell)
        made = Plan(name="x", arguments=(), experiment=Experiment(), factors=[], cells=[], graph=graph)
        for node in graph.nodes.values():
            facts = record["facts"].get(node.stage, {})
            # A reference or a draft is of a cell of its own, and so are its facts.
            if node.cell is cell and facts.get("flops") and facts.get("peak_memory"):
                yield f"{file.parent.name} {node.stage} {levels}", made, node, facts


def tokenizer(made: Plan, node: Node) -> str:
    nodes = made.graph.nodes
    return tokenizer_of(node.inputs, lambda key: nodes[key].inputs if key in nodes else None)


def learned(made: Plan, node: Node, facts: dict[str, Any]) -> Known:
    """What a store knows that holds this training."""
    known = Known()
    known.add(
        Artifact(
            key=node.key,
            path=Path(),
            stage=node.stage,
            kind=node.kind,
            inputs=node.inputs,
            facts={name: value for name, value in facts.items() if name != "bytes"},
            meta={"material": node.material},
        ),
        tokenizer=tokenizer(made, node),
    )
    return known


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """One for all reports: it remembers the fingerprints of the code."""
    return Store(tmp_path_factory.mktemp("store"))


@pytest.mark.slow
@pytest.mark.parametrize("file", REPORTS, ids=lambda file: file.parent.name)
def test_estimates_are_within_15_percent_of_committed_records(file: Path, store: Store) -> None:
    first: dict[tuple[str, ...], Known] = {}
    off = []
    compared = 0
    for where, made, node, facts in trainings(file, store):
        data = data_key(node.stage, node.material, tokenizer=tokenizer(made, node))
        known = first.setdefault(data, learned(made, node, facts))
        cost = Costs(made, known=known).of(node)
        # Older records held a log-softmax of all logits in single precision, and counted no scored tokens.
        today = "scored_tokens" in facts
        if today and 0 < memory_bound(node) < facts["peak_memory"]:
            off.append(f"{where}: took more than its bound of {memory_bound(node):.0f} bytes")
        if today and cost.at_most and node.stage == "pretrain":
            assert cost.memory is not None
            if cost.memory < facts["peak_memory"]:
                off.append(f"{where}: took more than the {cost.memory:.0f} bytes that the plan says at most")
        for name, estimate, measured in (
            ("FLOPs", cost.flops, facts["flops"]),
            # Records made before trainings told their padded length say only a bound.
            ("memory", None if cost.at_most or not today else cost.memory, facts["peak_memory"]),
        ):
            if estimate is not None:
                compared += 1
                if abs(estimate / measured - 1) > WITHIN:
                    off.append(f"{where}: {name} {estimate / measured:.2f} of what was measured")
    assert not off, "\n".join(off)
    records = json.loads(gzip.decompress(file.read_bytes()))["records"]
    assert compared or all(record["config"]["model"]["path"] for record in records)


TUNED = "stages=[corpus,tokenizer,tokens,pretrain,instruct]"
ALIGNED = "stages=[corpus,tokenizer,tokens,pretrain,instruct,align]"
LEARNED_REWARD = "stages=[corpus,tokenizer,tokens,pretrain,instruct,reward,align]"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "trainings"),
    [
        (["alignment=dpo,kto", "peft=lora", ALIGNED], {"pretrain": 1, "instruct": 1, "align": 2}),
        (["alignment=ppo", "reward=pairwise", LEARNED_REWARD], {"pretrain": 1, "instruct": 1, "reward": 1}),
        (
            ["architecture=encoder_decoder", "model.num_encoder_layers=2", "objective=denoising", TUNED],
            {"pretrain": 1, "instruct": 1},
        ),
    ],
    ids=["preferences", "reward", "encoder"],
)
def test_estimates_are_within_15_percent_of_a_run(
    chosen: list[str], trainings: dict[str, int], tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    arguments = ["scale=smoke", "corpus.max_bytes=300000", "quantizer=none", *chosen]
    assert sweep(arguments, Options(), store=store) == 0
    made = make_plan(arguments, store=store)
    costs = Costs(made)
    compared: Counter[str] = Counter()
    for key in made.wanted():
        artifact = store.get(key)
        if artifact.stage in trainings:
            cost = costs.of(made.graph.nodes[key])
            assert cost.flops == pytest.approx(artifact.facts["flops"], rel=WITHIN), artifact.stage
            assert cost.memory == pytest.approx(artifact.facts["peak_memory"], rel=WITHIN), artifact.stage
            assert cost.seconds is not None
            assert not cost.at_most
            compared[artifact.stage] += 1
    assert compared == trainings


def test_answers_nobody_has_counted_are_bounded(store: Store) -> None:
    """The demo's preferences were learned from before trainings told how many positions they scored."""
    (report,) = (file for file in REPORTS if file.parent.name == "demo")
    *_, made, node, facts = next(found for found in trainings(report, store) if found[2].stage == "align")
    old = {name: value for name, value in facts.items() if name != "scored_tokens"}
    bound = Costs(made, known=learned(made, node, old)).of(node)
    told = old | {"scored_tokens": facts["padded_tokens"] // 3}
    estimate = Costs(made, known=learned(made, node, told)).of(node)
    assert bound.at_most
    assert not estimate.at_most
    assert bound.flops == estimate.flops
    assert estimate.memory is not None
    assert bound.memory is not None
    assert facts["peak_memory"] < bound.memory
    assert estimate.memory < bound.memory


def test_an_encoders_windows_are_bounded_where_nobody_has_measured_their_sources(store: Store) -> None:
    """The plan says a bound: both as wide as they can be, and a margin for what the formula leaves out."""
    (report,) = (file for file in REPORTS if file.parent.name == "architecture")
    _, made, node, facts = next(
        found
        for found in trainings(report, store)
        if found[2].material["nodes"]["architecture"]["method"] == "encoder_decoder"
    )
    known = learned(made, node, {name: value for name, value in facts.items() if name != "source_tokens"})
    cost = Costs(made, known=known).of(node)
    assert cost.at_most
    assert cost.flops == pytest.approx(facts["flops"], rel=WITHIN)
    assert cost.memory is not None
    assert facts["peak_memory"] <= cost.memory <= MARGIN * (1 + WITHIN) * facts["peak_memory"]


def test_unknown_lengths_give_a_bound_and_say_so(store: Store) -> None:
    (report,) = (file for file in REPORTS if file.parent.name == "demo")
    for _, made, node, facts in itertools.islice(trainings(report, store), 4):
        cost = Costs(made, known=Known()).of(node)
        assert cost.flops is not None
        assert cost.at_most == (node.stage != "pretrain")
        if cost.at_most:
            assert cost.flops > facts["flops"]


def test_a_probe_tells_hours_before_anything_has_run(store: Store) -> None:
    (report,) = (file for file in REPORTS if file.parent.name == "demo")
    _, made, node, _ = next(trainings(report, store))
    assert Costs(made, known=Known()).of(node).seconds is None
    seconds = Costs(made, known=Known(), probe=1 << 40).of(node).seconds
    assert seconds is not None
    assert seconds > 0


@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "bitfit", "ia3", "prefix_tuning"])
def test_adapters_are_counted_on_shapes_as_they_are_trained(name: str) -> None:
    from harness.model import build

    cell = compose([f"peft={name}", "instruction=task", "model=micro"])
    method, spec = cell.choice("peft", stage="instruct"), cell.spec()
    assert method is not None
    assert spec is not None
    shape = {axis: choice for axis in MODEL_AXES if (choice := cell.choice(axis)) is not None}
    trained = method.build().apply(build(spec, shape, seed=0))
    expected = method.build().trainable_parameters(shapes_of(cell))
    assert expected == sum(p.numel() for p in trained.parameters() if p.requires_grad)


def test_a_quantizer_costs_a_training_only_where_it_trains(store: Store) -> None:
    stages = "stages=[corpus,tokenizer,tokens,pretrain,quantize,evaluate]"
    flops = {}
    for quantizer in ("rtn", "qat"):
        made = make_plan([stages, "model=micro", f"quantizer={quantizer}"], store=store)
        (node,) = (node for node in made.graph.nodes.values() if node.stage == "quantize")
        flops[quantizer] = Costs(made, known=Known()).of(node).flops
        assert memory_bound(node) > 0
    assert flops["rtn"] is None
    assert flops["qat"]


def test_bytes_per_token_grow_with_the_vocabulary() -> None:
    sizes = [100, 320, 700, 1024, 3000, 32000, 100000]
    typical = Tokenizer.typical_bytes_per_token
    found = [bytes_per_token(typical, size) for size in sizes]
    assert found == sorted(found)
    assert found[3] == typical[1024] == 2.58


@pytest.mark.parametrize("method", ["yarn", "dynamic_ntk", "lambda_window", "position_interpolation"])
def test_an_extension_is_planned_at_its_extended_length(method: str, tmp_path: Path) -> None:
    made = make_plan([f"context={method}", "context.factor=3"], store=Store(tmp_path))
    costs = Costs(made)
    pretrain, extend = (next(n for n in made.missing() if n.stage == s) for s in ("pretrain", "extend"))
    assert extend.config.sequence_length is None
    trains = extend.choices["context"].method.trains  # type: ignore[union-attr]
    assert trains == (costs.of(extend).flops is not None)
    if trains:
        spec = extend.cell.spec()
        assert spec is not None
        assert longest_sequence(extend) == 3 * spec.max_length
        # One token costs 12 * layers * width more for each token that stands before it (Kaplan et al. 2020).
        tokens = {node.stage: node.config.budget.amount for node in (pretrain, extend)}
        each = {n.stage: (costs.of(n).flops or 0.0) / tokens[n.stage] for n in (pretrain, extend)}
        further = longest_sequence(extend) - longest_sequence(pretrain)
        typical = Tokenizer.typical_bytes_per_token[1024]
        per_byte = 12 * spec.num_layers * spec.num_heads * spec.head_dim * further / typical
        assert each["extend"] - each["pretrain"] == pytest.approx(per_byte, rel=1e-6)
