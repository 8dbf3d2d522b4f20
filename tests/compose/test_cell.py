"""From overrides to a typed cell."""

import json

import pytest

from harness.compose import Cell, compose, load
from harness.compose.schema import stage_key
from harness.errors import ConfigError
from harness.registry.known import registry


@pytest.fixture(scope="module")
def default() -> Cell:
    return compose()


def test_every_axis_has_its_default(default: Cell) -> None:
    for name, axis in registry().axes.items():
        wanted = axis.default if isinstance(axis.default, tuple) else (axis.default,)
        found = tuple(choice.method.name for choice in default.choices(name))
        assert found == tuple(word for word in wanted if not (word == "none" and axis.optional)), name


def test_the_config_is_plain_and_canonical(default: Cell) -> None:
    assert json.loads(json.dumps(default.config)) == default.config
    assert default.config["attention"] == {"method": "full", "kernel": "auto", "cache": "contiguous"}


def test_equal_configs_have_equal_ids_and_others_do_not(default: Cell) -> None:
    assert compose(["attention.kernel=auto", "attention=full"]).id == default.id
    assert compose(["attention.kernel=math"]).id != default.id
    assert compose(["seed=1"]).id != default.id


def test_what_determines_no_result_is_no_part_of_the_id(default: Cell) -> None:
    assert compose(["tracker=[]", "device=cpu", "question=why"]).id == default.id


def test_threads_follow_from_the_stage_s_own_option_else_from_the_root_s(default: Cell) -> None:
    assert {default.stage_config(stage).threads for stage in default.stages} == {1}
    four = compose(["threads=4", "pretrain.threads=2"])
    assert four.stage_config("pretrain").threads == 2
    assert {four.stage_config(stage).threads for stage in four.stages if stage != "pretrain"} == {4}
    stated = [f"{stage_key(stage)}.threads=4" for stage in registry().stages if stage != "pretrain"]
    assert compose([*stated, "pretrain.threads=2"]).id == four.id != default.id
    with pytest.raises(ConfigError, match=r"instruct\.threads=0 must lie between 1 and 1024"):
        compose(["instruct.threads=0"])
    with pytest.raises(ConfigError, match=r"^threads=-1 must lie between 1 and 1024"):
        compose(["threads=-1"])


def test_a_frozen_config_runs_its_own_checks() -> None:
    with pytest.raises(ConfigError, match=r"attention\.window=0 must be at least 1"):
        compose(["attention=sliding_window", "attention.window=0"])


def test_a_training_axis_reaches_every_stage_unless_one_has_its_own() -> None:
    cell = compose(["optimizer.weight_decay=0.25", "optimizer@instruct.optimizer=adamw"])
    pretrain, instruct = (cell.choice("optimizer", stage=stage) for stage in ("pretrain", "instruct"))
    assert pretrain is not None
    assert instruct is not None
    assert pretrain.config.weight_decay == 0.25  # type: ignore[attr-defined]
    assert instruct.config.weight_decay == 0.1  # type: ignore[attr-defined]
    assert cell.config["pretrain"]["optimizer"] is None
    assert cell.config["instruct"]["optimizer"]["method"] == "adamw"


def test_a_stage_picks_stabilizers_by_name() -> None:
    cell = compose(["pretrain.stabilizers=[]"])
    assert cell.choices("stabilizer", stage="pretrain") == ()
    assert [c.method.name for c in cell.choices("stabilizer", stage="instruct")] == ["clip_norm"]
    with pytest.raises(ConfigError, match="No chosen stabilizer"):
        compose(["pretrain.stabilizers=[clip]"])


def test_a_stage_used_twice_has_options_of_its_own() -> None:
    cell = compose(["stages=[instruct,instruct@chat]", "+instruct_chat.learning_rate=0.5"])
    assert cell.stage_config("instruct@chat").learning_rate == 0.5
    assert cell.stage_config("instruct@chat").batch_size == cell.stage_config("instruct").batch_size
    assert cell.stage_config("instruct").learning_rate != 0.5


def test_a_list_axis_keeps_its_order() -> None:
    cell = compose(["evaluator=[efficiency,perplexity]"])
    assert [choice.method.name for choice in cell.choices("evaluator")] == ["efficiency", "perplexity"]
    assert compose(["evaluator=[]"]).choices("evaluator") == ()


def test_none_is_no_choice(default: Cell) -> None:
    assert default.choice("alignment") is None
    assert default.config["alignment"] == {"method": "none"}


def test_the_spec_follows_from_model_tokenizer_and_methods() -> None:
    cell = compose(["tokenizer.vocab_size=600", "model.dim=64"])
    spec = cell.spec()
    assert spec is not None
    assert (spec.vocab_size, spec.dim) == (600, 64)


def test_a_pretrained_model_keeps_its_architecture() -> None:
    cell = compose(["model=pretrained", "model.path=/models/llama"])
    assert cell.model_path() == "/models/llama"
    assert cell.spec() is None
    assert cell.choice("attention") is None
    with pytest.raises(ConfigError, match=r"attention=full cannot change the pretrained.*model\.import"):
        compose(["model=pretrained", "model.path=/models/llama", "attention=full"])
    cell = compose(["model=pretrained", "model.path=/m", "model.import=true", "attention=full"])
    assert cell.choice("attention") is not None
    with pytest.raises(ConfigError, match=r"needs model\.path=DIR"):
        compose(["model=pretrained"])


def test_a_seed_may_begin_with_a_stage() -> None:
    assert compose(["seed=3", "seed_from=instruct"]).seed_from == "instruct"
    with pytest.raises(ConfigError, match="No stage"):
        compose(["seed_from=instrct"])


def test_composing_leaves_hydra_as_it_was() -> None:
    from hydra.core.global_hydra import GlobalHydra

    load()
    assert not GlobalHydra.instance().is_initialized()


def test_a_scale_bounds_what_a_cell_has_and_wins_over_the_experiment() -> None:
    cell = compose(["scale=smoke", "evaluator=[lm_eval,perplexity]"])
    limits = {choice.method.name: choice.config for choice in cell.choices("evaluator")}
    assert limits["lm_eval"].limit == 10  # type: ignore[attr-defined]
    assert limits["perplexity"].max_documents == 10  # type: ignore[attr-defined]
    assert cell.stage_config("pretrain").budget.amount == 2
    assert cell.config["corpus"]["max_bytes"] == 400_000
    assert cell.config["model"]["num_encoder_layers"] == 0


@pytest.mark.parametrize("stated", [3, 300])
def test_a_scale_does_not_bound_what_is_typed(stated: int) -> None:
    for key in ("max_documents", "max_bytes"):
        for text in (f"evaluator.perplexity.{key}={stated}", f"evaluator.perplexity={{{key}:{stated}}}"):
            assert compose(["scale=smoke", text]).config["evaluator"]["perplexity"][key] == stated
    assert compose(["scale=smoke", "model=small"]).config["model"]["dim"] == 64, "a preset is not a value"
