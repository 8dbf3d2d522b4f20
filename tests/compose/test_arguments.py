"""Configs of a user's own, wherever they lie, and what of Hydra's has no effect here."""

from pathlib import Path

import pytest

from harness.compose import compose
from harness.compose.arguments import standing
from harness.errors import ConfigError

OWN = "# @package _global_\nquestion: Mine?\nfactors: {attention: [full, multi_query]}\nseeds: [7]\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    for file in ("mine.yaml", "conf/experiment/other.yaml"):
        (tmp_path / file).write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ("experiment=./mine.yaml", "mine"),
        ("experiment=mine.yaml", "mine"),
        ("experiment=./mine", "mine"),
        ("experiment=other --config-dir conf", "other"),
        ("experiment=other --config-dir=conf", "other"),
        ("experiment=other hydra.searchpath=[conf]", "other"),
    ],
)
def test_an_experiment_of_ones_own_composes_wherever_it_lies(folder: Path, words: str, name: str) -> None:
    given = standing(words.split())
    assert not any(text.startswith("--") for text in given)
    cell = compose(given)
    assert (cell.experiment.name, cell.experiment.question, cell.experiment.seeds) == (name, "Mine?", [7])
    assert str(folder) in " ".join(cell.overrides), "a record says where it lay"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("experiment=./none.yaml", "there is no file .*none.yaml"),
        ("--config-dir nowhere", "nowhere is no folder of configs"),
        ("--config-dir", "--config-dir takes a folder"),
        ("hydra.sweep.dir=out attention=full,linear", "has no effect: results go to the store"),
        ("hydra.run.dir=out", "has no effect: results go to the store"),
    ],
)
def test_what_is_not_there_or_has_no_effect_is_refused(folder: Path, words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        standing(words.split())


def test_a_launchers_own_files_go_where_it_is_told() -> None:
    given = ["hydra.sweep.dir=out", "hydra/launcher=joblib"]
    assert standing(given) == given


def test_a_pretrained_model_drops_the_stages_that_would_build_one() -> None:
    cell = compose(["model=pretrained", "model.path=/m"])
    assert cell.stages == tuple(stage for stage in compose().stages if stage not in ("tokenizer", "pretrain"))
    named = compose(["model=pretrained", "model.path=/m", "stages=[corpus,tokenizer,tokens,pretrain]"])
    assert "pretrain" in named.stages, "what is typed stays, for the plan to refuse by name"
    seeded = compose(["model=pretrained", "model.path=/m", "seed_from=pretrain"])
    assert seeded.seed_from == "dither"


def test_options_of_a_method_hold_where_it_is_chosen() -> None:
    given = ["+where_chosen={corpus.stdlib.max_bytes: 5000, evaluator.lm_eval.limit: 3}"]
    assert compose(given).config["corpus"]["max_bytes"] == 5000
    assert compose([*given, "corpus.max_bytes=70"]).config["corpus"]["max_bytes"] == 70
    assert "max_bytes" not in compose([*given, "corpus=jsonl", "corpus.path=x"]).config["corpus"]
    cell = compose([*given, "evaluator=[lm_eval,perplexity]"])
    assert cell.config["evaluator"]["lm_eval"]["limit"] == 3
    with pytest.raises(
        ConfigError, match=r"No option of corpus=stdlib .in where_chosen. is called 'max_bite'"
    ):
        compose(["+where_chosen={corpus.stdlib.max_bite: 5000}"])
