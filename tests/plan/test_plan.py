"""The plan: cells as Hydra composes them, stages shared, seeds where they belong, problems beforehand."""

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.commands.plan import problem_lines, stage_table
from harness.compose import compose, load
from harness.errors import ConfigError
from harness.plan import assemble
from harness.plan.assemble import Assembler
from harness.plan.costs import Costs
from harness.plan.make import make_plan
from harness.plan.measured import Known
from harness.store import Store

SMALL = ("scale=smoke", "corpus.max_bytes=300000")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.mark.parametrize(
    "overrides",
    [
        ["attention=grouped_query", "attention.num_kv_heads=2", "seed=3", "seed_from=pretrain"],
        ["optimizer=lion", "optimizer.weight_decay=0.25"],
        ["optimizer@align.optimizer=lion", "alignment=dpo", "alignment.beta=0.2"],
        ["quantizer=rtn", "quantizer.bits=8", "pretrain.learning_rate=0.01"],
        ["peft=lora", "instruct.budget.amount=1000"],
        ["evaluator=[perplexity]", "stabilizer=[]"],
        ["scale=mini", "tokenizer=byte_bpe", "tokenizer.vocab_size=300"],
        ["stages=[corpus,tokenizer]", "mixture=proportional"],
        ["+experiment_note=x"],
    ],
)
def test_assembled_cells_equal_hydras_own_composition(overrides: list[str]) -> None:
    base = (*SMALL, "optimizer.weight_decay=0.1")
    assembler = Assembler(base)
    keys = {text.partition("=")[0] for text in overrides}
    whole = [text for text in base if text.partition("=")[0] not in keys] + overrides
    if overrides[0].startswith("+"):
        with pytest.raises(ConfigError):
            compose(whole)
        with pytest.raises(ConfigError):
            assembler.cell(overrides)
        return
    theirs, ours = compose(whole), assembler.cell(overrides)
    assert ours.config == theirs.config
    assert (ours.id, ours.overrides) == (theirs.id, theirs.overrides)


VALUES: dict[str, list[str]] = {
    "attention": ["full", "grouped_query", "sliding_window"],
    "attention.kernel": ["auto", "math"],
    "position": ["rope", "alibi", "none"],
    "optimizer": ["adamw", "lion", "sgd"],
    "optimizer.weight_decay": ["0.0", "0.25"],
    "optimizer@align.optimizer": ["lion", "adamw"],
    "schedule": ["cosine", "constant"],
    "peft": ["full", "lora"],
    "quantizer": ["none", "rtn"],
    "stabilizer": ["[]", "[clip_norm]", "[clip_norm,z_loss]"],
    "evaluator": ["[perplexity]", "[perplexity,efficiency]"],
    "model": ["mini", "small"],
    "scale": ["smoke", "mini"],
    "experiment": ["demo"],
    "pretrain.learning_rate": ["0.001", "1e-2"],
    "pretrain.budget.amount": ["1000"],
    "stages": ["[corpus,tokenizer]"],
    "seed": ["0", "7"],
    "seed_from": ["pretrain", "null"],
}
"""Overrides of every sort: axes, options, mounted axes, lists, presets, scales, experiments, plain values."""
_MEMO: dict[tuple[str, ...], Assembler] = {}


@st.composite
def command_lines(draw: st.DrawFn) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """A base and a cell's own overrides; no key twice in either."""
    keys = st.sets(st.sampled_from(sorted(VALUES)), max_size=3)

    def texts() -> tuple[str, ...]:
        chosen = sorted(draw(keys), key=lambda key: ("." in key, key))
        return tuple(f"{key}={draw(st.sampled_from(VALUES[key]))}" for key in chosen)

    return texts(), texts()


@pytest.mark.slow
@given(command_lines())
@settings(max_examples=5, deadline=None, derandomize=True)
def test_any_cell_is_assembled_as_hydra_composes_it(line: tuple[tuple[str, ...], tuple[str, ...]]) -> None:
    base, own = line
    replaced = {text.partition("=")[0] for text in own}
    whole = [text for text in base if text.partition("=")[0] not in replaced] + list(own)
    assembler = _MEMO.setdefault(base, Assembler(base))
    try:
        theirs = compose(whole)
    except ConfigError:
        with pytest.raises(ConfigError):
            assembler.cell(own)
        return
    ours = assembler.cell(own)
    assert ours.config == theirs.config
    assert (ours.id, ours.overrides) == (theirs.id, theirs.overrides)


def test_choices_that_were_composed_together_equal_hydras_own_composition() -> None:
    cells = [
        ["optimizer=lion", "quantizer=rtn", "peft=lora", "peft.rank=2"],
        ["optimizer=adamw", "quantizer=nf4", "peft=full"],
        ["optimizer=sgd", "quantizer=rtn", "peft=lora"],
    ]
    assembler = Assembler(SMALL)
    assembler.foresee(cells)
    for overrides in cells:
        theirs, ours = compose([*SMALL, *overrides]), assembler.cell(overrides)
        assert (ours.config, ours.id) == (theirs.config, theirs.id)
    assert len(assembler._composed) == 3, "the base, and two that hold all choices"


@pytest.mark.parametrize("bad", ["optimizer.weight_dekay=1", "pretrain.learning_rate=fast", "attention=gqq"])
def test_a_bad_value_of_any_cell_is_refused_before_anything_runs(store: Store, bad: str) -> None:
    key, _, value = bad.partition("=")
    good = {"attention": "full", "pretrain.learning_rate": "0.1"}.get(key, "0.1")
    with pytest.raises(ConfigError):
        make_plan([*SMALL, f"{key}={good},{value}"], store=store)


def test_stages_are_shared_as_far_as_nothing_differs(store: Store) -> None:
    plan = make_plan([*SMALL, "peft=full,lora", "quantizer=none,rtn", "seed=0,1"], store=store)
    assert len(plan.cells) == 8
    by_stage: dict[str, set[str]] = {}
    for key in plan.wanted():
        by_stage.setdefault(plan.graph.nodes[key].stage, set()).add(key)
    counts = {stage: len(keys) for stage, keys in by_stage.items()}
    assert (counts["corpus"], counts["tokenizer"], counts["tokens"], counts["pretrain"]) == (1, 1, 1, 1)
    assert (counts["instruct"], counts["quantize"]) == (4, 4)
    seeds = {(n.stage, n.seed) for n in plan.graph.nodes.values() if n.stage in ("pretrain", "instruct")}
    assert seeds == {("pretrain", 0), ("instruct", 0), ("instruct", 1)}
    assert plan.summary().startswith("8 cells, ")
    assert plan.name == "peft_x_quantizer_sweep", "a shipped experiment has the other"


def test_seeds_share_what_draws_nothing(store: Store) -> None:
    held = ["seed=0,1,2", "seed_from=quantize", "peft=full", "evaluator=[perplexity]"]
    plan = make_plan([*SMALL, "quantizer=rtn,gptq", *held], store=store)
    nodes = [plan.graph.nodes[key] for key in plan.wanted()]
    packed = [node for node in nodes if node.stage == "quantize"]
    found = {(node.choices["quantizer"].method.name, node.seed) for node in packed}  # type: ignore[union-attr]
    assert found == {("rtn", None), ("gptq", 0), ("gptq", 1), ("gptq", 2)}
    scored = [node for node in nodes if node.stage == "evaluate"]
    assert len(scored) == 4, "one of the rounded model, three of the calibrated ones"
    assert {node.seed for node in scored} == {None}


def test_keys_of_a_part_hold_only_what_it_depends_on(store: Store) -> None:
    one = make_plan([*SMALL, "evaluator=[perplexity]"], store=store)
    two = make_plan([*SMALL, "evaluator=[perplexity,efficiency]"], store=store)
    assert set(one.cells[0].keys) < set(two.cells[0].keys)


def test_what_cannot_change_a_result_changes_no_key(store: Store) -> None:
    plain = make_plan([*SMALL], store=store)
    other = make_plan([*SMALL, "tracker=[]", "question=why"], store=store)
    assert plain.cells[0].keys == other.cells[0].keys
    assert plain.cells[0].cell.id == other.cells[0].cell.id


def test_a_run_takes_first_levels_and_says_so(store: Store) -> None:
    with pytest.raises(ConfigError, match="use `harness sweep`"):
        make_plan([*SMALL, "peft=full,lora"], store=store, single=True)


def test_a_run_of_an_experiment_takes_its_first_cell(store: Store) -> None:
    plan = make_plan(["experiment=demo", "scale=smoke"], store=store, single=True)
    assert len(plan.cells) == 1
    assert "one cell of several" in plan.notes[0]
    whole = make_plan(["experiment=demo", "scale=smoke"], store=store)
    assert plan.cells[0].cell.id == whole.cells[0].cell.id


def test_the_demos_plan_is_composed_few_times_and_read_at_80_columns(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    composed: list[object] = []

    def load_and_count(overrides: Sequence[str]) -> Any:
        composed.append(overrides)
        return load(overrides)

    monkeypatch.setattr(assemble, "load", load_and_count)
    made = make_plan(["experiment=demo"], store=store)
    assert len(composed) <= 2, "the base is composed once, and its axes' levels together"
    assert re.fullmatch(r"\d+ cells, \d+ stages asked, \d+ to run, 0 in the store", made.summary())
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(stage_table(made, Costs(made, known=Known())))
    lines = console.export_text().splitlines()
    assert lines[0].split() == ["stage", "asked", "to", "run", "stored", "FLOPs", "memory", "disk", "hours"]
    assert [line.split()[0] for line in lines[1:]] == [*made.cells[-1].cell.stages, "all"]
    assert "\u2026" not in "".join(lines), "nothing is cut off"


def test_each_reason_why_cells_cannot_work_is_given_once(store: Store) -> None:
    made = make_plan([*SMALL, "stages=[corpus,tokenizer]", "quantizer=none,rtn", "seed=0,1"], store=store)
    lines = problem_lines(made)
    assert lines[0].startswith("cannot work (2 of 4 cells): quantizer: quantizer=rtn changes nothing")
    assert lines[1] == "  quantizer=rtn"


def test_several_nodes_are_refused_unless_somebody_can_place_them(store: Store) -> None:
    asked = [*SMALL, "parallelism=ddp", "parallelism.num_nodes=1,2", "parallelism.num_processes=2"]
    made = make_plan(asked, store=store)
    assert [bool(cell.refused) for cell in made.cells] == [False, True]
    lines = problem_lines(made)
    assert "2 nodes need a launcher that can place them; run the sweep with hydra/launcher=" in lines[0]
    assert "parallelism.num_nodes=1 parallelism.num_processes=4" in lines[0]
    placed = make_plan(asked, store=store, places_nodes=True)
    assert not any(cell.refused for cell in placed.cells)


def test_cells_that_are_the_same_are_left_out(store: Store) -> None:
    arguments = [*SMALL, "peft=full,lora", "stages=[corpus,tokenizer]"]
    plan = make_plan([*arguments, "tracker=[],[jsonl]"], store=store)
    assert len(plan.cells) == 2
    assert plan.notes == ["2 cells the same as another, left out"]


@pytest.mark.parametrize(
    ("repeated", "message"),
    [
        ("optimizer=adamw,adamw", "optimizer=adamw,adamw names adamw twice"),
        ("seed=0,0", "seed=0,0 names 0 twice"),
        ("seeds=[0,1,0]", "seeds: \\[0, 1, 0\\] names 0 twice"),
        ("seeds=[]", "seeds: \\[\\] names no seed"),
        ("seeds=[0,-1]", "seed=-1 must lie between 0 and 4294967295"),
        ("seed=0,-1", "seed=-1 must lie between 0 and 4294967295"),
        ("optimizer.weight_decay=0.1,1e-1", "names 0.1 twice"),
        ("seed=0 seed=1", "seed is given twice, as 0 and as 1"),
        ("seed=0,1 seeds=[3,4]", "seeds=\\[3,4\\] and seed=0,1 both say which seeds there are; drop one"),
    ],
)
def test_what_is_typed_twice_is_refused_by_name(store: Store, repeated: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_plan([*SMALL, *repeated.split()], store=store)


@pytest.mark.parametrize(("seeds", "message"), [("[0, 0]", "names 0 twice"), ("[]", "names no seed")])
def test_seeds_of_a_users_experiment_are_refused_as_typed_ones_are(
    store: Store, tmp_path: Path, seeds: str, message: str
) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(f"# @package _global_\nquestion: Why?\nfactors: {{peft: [full, lora]}}\nseeds: {seeds}\n")
    with pytest.raises(ConfigError, match=message):
        make_plan([f"experiment={file}", "scale=smoke"], store=store)


def test_a_variable_of_the_environment_is_what_its_value_is(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"METHOD": "linear", "RATE": "0.01", "SWEEP": "a, b"}.items():
        monkeypatch.setenv(name, value)
    typed = [
        "pretrain.learning_rate=${oc.env:RATE},1e-3",
        "attention=${oc.env:METHOD}",
        "name='of ${oc.env:SWEEP}'",
    ]
    plan = make_plan([*SMALL, *typed], store=store)
    same = ["pretrain.learning_rate=0.01,1e-3", "attention=linear", "name='of a, b'"]
    assert [cell.cell.overrides for cell in plan.cells] == [
        cell.cell.overrides for cell in make_plan([*SMALL, *same], store=store).cells
    ]
    assert plan.name == "of a, b"
    with pytest.raises(ConfigError, match="the environment has no variable NONE; set it, or give a default"):
        make_plan([*SMALL, "pretrain.learning_rate=${oc.env:NONE}"], store=store)


def test_the_overrides_of_a_cell_make_the_same_cell_alone(store: Store) -> None:
    """`harness reproduce` runs them: the stage from which a seed varies it is not to follow from factors."""
    for cell in make_plan([*SMALL, "peft=full,lora", "seed=0,1"], store=store).cells:
        assert cell.cell.seed_from == "instruct"
        (alone,) = make_plan(cell.cell.overrides, store=store).cells
        assert (alone.cell.id, alone.keys) == (cell.cell.id, cell.keys)


IDLE = {
    "align.learning_rate=0.1": "align; choose alignment=NAME, or drop it",
    "optimizer@align.optimizer=lion,adamw": "align; choose alignment=NAME, or drop it",
    "reward_stage.batch_size=3": "reward; choose reward=NAME, or drop it",
    "dither.levels=7": "dither; set dither.steps=..., or drop it",
    "decontaminate.enabled=false decontaminate.ngram=7": "decontaminate; set decontaminate.enabled=..., or",
    "stages=[corpus,tokenizer] ++pretrain.batch_size=2": "pretrain; add pretrain to `stages`, or drop it",
    "stages=[corpus,tokenizer] optimizer.weight_decay=0.1,0.2": "a stage that reads optimizer (pretrain or",
}
"""What is typed -> what no cell runs, which would read it."""


@pytest.mark.parametrize("typed", IDLE)
def test_a_typed_option_that_no_cell_reads_is_refused_by_name(store: Store, typed: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_plan([*SMALL, *typed.split()], store=store)
    assert str(caught.value).startswith(f"{typed.split()[-1]} changes nothing: no cell runs {IDLE[typed]}")


@pytest.mark.parametrize(
    "typed", ["decontaminate.enabled=false", "dither.steps=0", "alignment=none,dpo align.learning_rate=0.1"]
)
def test_an_option_that_decides_whether_its_stage_runs_is_read(store: Store, typed: str) -> None:
    assert make_plan([*SMALL, *typed.split()], store=store).notes == []


@pytest.mark.parametrize("typed", ["rotation=hadamard", "rotation=none,hadamard", "feedback=question"])
def test_a_typed_choice_that_no_stage_reads_is_refused_by_name(store: Store, typed: str) -> None:
    """QuaRot rotates for a quantizer, feedback labels pairs for an alignment: alone, both change nothing."""
    axis = typed.partition("=")[0]
    with pytest.raises(ConfigError, match=rf"{axis}=\w+ changes nothing: no cell runs a stage that reads it"):
        make_plan([*SMALL, typed], store=store)
    read = {"rotation": "quantizer=none,rtn", "feedback": "alignment=none,dpo"}[axis]
    made = make_plan([*SMALL, typed, read], store=store)
    assert any(cell.cell.choice(axis) and not cell.refused for cell in made.cells)


FIXED = [
    ("peft=lora,dora peft.rank=4", "peft", "rank", 4),
    ("quantizer=rtn,gptq quantizer.bits=3", "quantizer", "bits", 3),
    ("quantizer=none,gptq quantizer.bits=3", "quantizer", "bits", 3),
    ("alignment=dpo,ipo alignment.beta=0.2", "alignment", "beta", 0.2),
    ("context=yarn,position_interpolation context.factor=4", "context", "factor", 4.0),
    ("decoding=top_k,top_p decoding.temperature=0.7", "decoding", "temperature", 0.7),
]


@pytest.mark.parametrize(("words", "axis", "option", "value"), FIXED, ids=[words for words, *_ in FIXED])
def test_a_fixed_option_holds_for_every_swept_method(
    store: Store, words: str, axis: str, option: str, value: object
) -> None:
    plan = make_plan([*SMALL, *words.split()], store=store)
    nodes = [cell.cell.config[axis] for cell in plan.cells]
    assert len(nodes) == 2
    assert all(node[option] == value for node in nodes if node["method"] != "none")


def test_a_fixed_option_that_some_methods_lack_is_refused_with_their_names(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"peft=full and peft=bitfit have no option 'rank' .lora has."):
        make_plan([*SMALL, "peft=full,lora,bitfit", "peft.rank=4"], store=store)
    with pytest.raises(
        ConfigError, match=r"No option of peft=lora or peft=dora is called 'rnk'. Did you mean"
    ):
        make_plan([*SMALL, "peft=lora,dora", "peft.rnk=4"], store=store)


def test_an_impossible_cell_does_not_hide_the_others(store: Store) -> None:
    plan = make_plan([*SMALL, "tokenizer=byte,byte_bpe", "tokenizer.vocab_size=300"], store=store)
    assert [cell.refused for cell in plan.cells] == [
        "tokenizer: tokenizer.vocab_size=300 must be 263 for bytes",
        "",
    ]
    with pytest.raises(ConfigError, match=r"tokenizer\.vocab_size=300 must be 263 for bytes"):
        make_plan([*SMALL, "tokenizer=byte", "tokenizer.vocab_size=300"], store=store)


def test_what_is_typed_is_not_bounded_by_a_scale(store: Store) -> None:
    for words in (["quantize.calibration_sequences=12"], ["quantize.calibration_sequences=12,13"]):
        plan = make_plan([*SMALL, "quantizer=gptq", *words], store=store)
        assert [cell.cell.config["quantize"]["calibration_sequences"] for cell in plan.cells] == [12, 13][
            : len(plan.cells)
        ]
        assert {cell.cell.config["quantize"]["held_out_sequences"] for cell in plan.cells} == {2}


@pytest.mark.parametrize(
    ("words", "factor", "expected"),
    [
        ("experiment=demo instruction=alpaca instruction.path=x", "tuning", ["none", "alpaca", "alpaca"]),
        ("experiment=objective instruction=alpaca instruction.path=x", "tuning", ["none", "alpaca"]),
        ("experiment=quantization instruction=alpaca instruction.path=x", "data", ["alpaca"]),
    ],
)
def test_experiments_take_a_users_instruction_data(
    store: Store, words: str, factor: str, expected: list[str]
) -> None:
    plan = make_plan([*words.split(), "scale=smoke", "seed=0"], store=store)
    found = {cell.levels[factor]: cell.cell.config["instruction"]["method"] for cell in plan.cells}
    assert list(found.values()) == expected


def test_values_of_an_option_that_levels_set_are_crossed_with_the_levels(store: Store) -> None:
    asked = ["experiment=alignment", "scale=mini", "alignment=dpo,ppo", "align.learning_rate=1e-5,1e-4"]
    plan = make_plan([*asked, "seed=0"], store=store)
    found = [
        (cell.cell.config["alignment"]["method"], cell.cell.config["align"]["learning_rate"])
        for cell in plan.cells
    ]
    assert found == [("dpo", 1e-5), ("dpo", 1e-4), ("ppo", 1e-5), ("ppo", 1e-4)]
    assert list(plan.cells[0].levels) == ["alignment", "align.learning_rate"]


def test_levels_that_differ_by_swept_values_alone_are_named(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"quantizer.bits=3,4: levels of factor quantizer differ by it"):
        make_plan(["experiment=quantizers", "quantizer.bits=3,4"], store=store)


def test_levels_that_differ_by_a_typed_option_alone_are_named(store: Store) -> None:
    message = (
        r"levels of factor quantizer differ by it alone \(rtn 8, gptq 8, .*; choose one of them, 'quanti"
    )
    with pytest.raises(ConfigError, match=message):
        make_plan(["experiment=quantizers", "quantizer.bits=3"], store=store)


def test_a_model_reference_becomes_a_node_of_the_graph(store: Store) -> None:
    plan = make_plan(
        [*SMALL, "peft=lora", "evaluator=[win_rate]", "evaluator.win_rate.baseline='cell:peft=full'"],
        store=store,
    )
    nodes = plan.graph.nodes
    (rate,) = [node for node in nodes.values() if node.stage == "evaluate"]
    baseline = nodes[rate.inputs["evaluator.win_rate.baseline"]]
    assert baseline.stage == "instruct"
    assert baseline.choices["peft"].method.name == "full"  # type: ignore[union-attr]
    assert baseline.key in plan.wanted()
    assert baseline.key not in plan.cells[0].keys

    table = stage_table(plan, Costs(plan, known=Known()))
    to_run = list(table.columns[2].cells)
    assert sum(map(int, to_run[:-1])) == int(str(to_run[-1])) == len(plan.missing()), "every stage has a line"


def test_a_full_store_does_not_make_a_cell_valid(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [*SMALL, "stages=[corpus,tokenizer,tokens,pretrain,evaluate]", "peft=lora,dora"]
    before = [cell.refused for cell in make_plan(idle, store=store).cells]
    assert all("peft" in reason and "changes nothing" in reason for reason in before)
    monkeypatch.setattr(Store, "find", lambda self, key: object())  # all stages are there
    assert [cell.refused for cell in make_plan(idle, store=store).cells] == before


def test_threads_are_in_the_key_and_follow_from_nothing_but_the_options(store: Store) -> None:
    plan = make_plan([*SMALL, "optimizer=adamw,lion"], store=store)
    alone = make_plan([*SMALL, "optimizer=lion"], store=store)
    assert alone.cells[0].keys == plan.cells[1].keys
    two = make_plan([*SMALL, "optimizer=lion", "pretrain.threads=2"], store=store)
    stages = [node.stage for node in map(plan.graph.nodes.get, plan.cells[1].keys) if node is not None]
    same = [a == b for a, b in zip(alone.cells[0].keys, two.cells[0].keys, strict=True)]
    assert same == [stage in ("corpus", "decontaminate", "tokenizer", "tokens") for stage in stages]
    assert {node.threads for node in two.graph.nodes.values()} == {1, 2}


def test_a_missing_input_is_explained(store: Store) -> None:
    with pytest.raises(ConfigError, match=r"needs .*which no earlier stage"):
        make_plan([*SMALL, "stages=[pretrain]"], store=store)


def test_a_model_named_by_its_cell_drops_the_options_of_what_it_replaces(store: Store) -> None:
    asked = ["evaluator=[divergence]", "evaluator.divergence.reference='cell:quantizer=none'", "seed=0"]
    plan = make_plan(
        [*SMALL, "quantizer=rtn", "quantizer.bits=3", "quantizer.granularity=group", *asked], store=store
    )
    (cell,) = plan.cells
    assert not cell.problems
    nodes = [plan.graph.nodes[key] for key in cell.keys]
    (scored,) = (node for node in nodes if node.stage == "evaluate")
    reference = plan.graph.nodes[scored.inputs["evaluator.divergence.reference"]]
    assert reference.stage == "instruct", "the model before it was packed"
    assert reference.key in cell.keys
