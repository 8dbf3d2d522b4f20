"""A third party's stage with an axis of its own, installed for real: checked, planned and swept as ours."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import turns
from third_party import distribution, harness

SMALL = ["scale=smoke", "seeds=[0]"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory whose cache knows what is installed."""
    return tmp_path_factory.mktemp("place")


def test_its_axis_is_listed_and_shown(lowrank: Path, place: Path) -> None:
    listed = harness(["list", "factorizer"], lowrank, cwd=place).stdout
    assert "Gives every linear layer a weight of lower rank" in listed
    assert "whitened" in listed
    shown = harness(["show", "factorizer", "svd"], lowrank, cwd=place).stdout
    assert "factorizer.rank_share=0.5   (float)" in shown
    config = harness(["--cfg", "job", "factorizer=svd", "factorize.threads=2"], lowrank, cwd=place).stdout
    assert "method: svd" in config
    assert "calibration_sequences: 32" in config


def test_its_stage_is_listed_and_shown(lowrank: Path, place: Path) -> None:
    listed = harness(["list"], lowrank, cwd=place).stdout
    stages = listed[listed.index("stages:") :]
    assert "[harness-lowrank" in next(line for line in stages.splitlines() if "  factorize " in line)
    assert stages.index("  align ") < stages.index("  factorize ") < stages.index("  quantize ")
    assert harness(["list", "stage"], lowrank, cwd=place).stdout == stages
    shown = harness(["show", "factorize"], lowrank, cwd=place).stdout
    assert shown == harness(["show", "stage", "factorize"], lowrank, cwd=place).stdout
    assert "makes: model" in shown
    assert "axes: factorizer" in shown
    assert "factorize.threads=null" in shown
    wrong = harness(["show", "stage", "factorise"], lowrank, cwd=place)
    assert "No stage is called 'factorise'. Did you mean 'factorize'?" in wrong.stdout + wrong.stderr


@turns.ALWAYS
def test_it_passes_the_suites_of_stages_methods_and_its_own(lowrank: Path, place: Path) -> None:
    checked = harness(["check", "harness-lowrank", "--", "-vv"], lowrank, cwd=place)
    assert checked.returncode == 0, checked.stdout[-5000:] + checked.stderr
    assert "harness-lowrank: factorizer=svd, factorizer=whitened, stage factorize" in checked.stdout
    for test in (
        "::test_more_rank_loses_less[factorizer=whitened] PASSED",  # a suite outside has no path of its own
        "test_methods.py::test_the_config_is_frozen[factorizer=svd] PASSED",
        "test_stages.py::test_it_makes_a_model_of_a_model[stage=factorize] PASSED",
    ):
        assert test in checked.stdout
    assert "quantizer=" not in checked.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "right", "wrong", "says"),
    [
        ("factorize.py", '"effects": {what: effects}', '"effects": {}', "what was changed under `effects`"),
        (
            "factorize.py",
            "return bool(choice.build().needs_calibration)",
            "return False",
            "it says that it draws nothing, and depends on the seed",
        ),
        (
            "factorize.py",
            "loaded.save(work.out",
            "open_dense(work, what=what).save(work.out",
            "the model it leaves is the one it was given",
        ),
        ("svd.py", "u[:, :rank] * s[:rank]) @ v[:rank]", "u * s) @ v", "has rank 64"),
    ],
    ids=["no proof", "a seed not in the key", "nothing saved", "full rank"],
)
def test_a_planted_bug_is_told_in_the_author_s_words(
    lowrank: Path, tmp_path: Path, file: str, right: str, wrong: str, says: str
) -> None:
    site = tmp_path / "site"
    shutil.copytree(lowrank, site)
    broken = site / "harness_lowrank" / file
    text = broken.read_text()
    assert right in text
    broken.write_text(text.replace(right, wrong))
    only = ["-k", "of_a_model or seed_alone or rank_that_was"]
    checked = harness(["check", "harness-lowrank", "--", *only], site, cwd=tmp_path)
    assert checked.returncode == 1, checked.stdout + checked.stderr
    assert says in checked.stdout


def test_an_axis_without_a_suite_is_named(lowrank: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(lowrank, site)
    shutil.rmtree(site / "harness_lowrank" / "suites")
    listed = harness(["list"], site, cwd=tmp_path).stdout
    assert "harness_suites returned 'pkg://harness_lowrank.suites', which is no folder" in listed
    init = site / "harness_lowrank" / "__init__.py"
    init.write_text(init.read_text().split("\n\n\n@hookimpl\ndef harness_suites")[0] + "\n")
    asked = ["check", "harness-lowrank", "--only", "factorizer=svd", "--", "-k", "frozen", "-vv"]
    checked = harness(asked, site, cwd=tmp_path)
    assert "test_the_config_is_frozen[factorizer=svd] PASSED" in checked.stdout
    assert "whitened" not in checked.stdout
    assert "no suite: factorizer; ship test_<axis>.py through harness_suites" in checked.stdout


def test_its_experiment_is_planned_across_built_in_quantizers(lowrank: Path, place: Path) -> None:
    planned = harness(["plan", "experiment=rank_and_bits", "scale=smoke"], lowrank, cwd=place)
    assert planned.returncode == 0, planned.stderr
    assert "27 cells" in planned.stdout
    rows = {line.split()[0]: line.split()[1:3] for line in planned.stdout.splitlines() if line.strip()}
    assert rows["factorize"] == ["18", "6"], "two methods a seed, shared by the quantizers"
    assert rows["quantize"] == ["18", "18"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["quantizer=rtn", "stages=[corpus,tokenizer,tokens,pretrain,quantize,factorize,evaluate]"],
            "quantize packs the weights before; put factorize before it",
        ),
        (["corpus.max_bytes=1000"], "factorizer=whitened needs 32 x 128 = 4096 tokens"),
        (["factorizer.rank_share=2"], "factorizer.rank_share=2.0 must lie between 0 and 1"),
        (["stages=[corpus,tokenizer,tokens,pretrain,evaluate]"], "factorizer=whitened changes nothing"),
    ],
)
def test_what_cannot_work_is_refused_by_the_plan(
    lowrank: Path, place: Path, given: list[str], message: str
) -> None:
    planned = harness(["plan", "factorizer=whitened", *given], lowrank, cwd=place)
    assert message in " ".join((planned.stdout + planned.stderr).split())


@pytest.mark.slow
def test_it_is_swept_across_built_in_quantizers_resumed_and_exported(
    lowrank: Path, place: Path, own_store: Path
) -> None:
    """One sweep of its axis and ours; the same command again runs nothing."""
    asked = ["sweep", "experiment=rank_and_bits", *SMALL, "factorizer=none,whitened", "quantizer=none,rtn"]
    swept = harness(asked, lowrank, cwd=place)
    assert swept.returncode == 0, swept.stdout + swept.stderr
    (sweep,) = (own_store / "records").iterdir()
    records = [json.loads(file.read_text()) for file in sweep.glob("*/record.json")]
    assert {record["outcome"]["status"] for record in records} == {"ok"}
    applied = [[s["stage"] for s in record["stages"]] for record in records]
    assert sorted(len(stages) for stages in applied) == [5, 6, 6, 7]
    proofs = [r["effects"]["factorize"] for r in records if "factorize" in r["effects"]]
    assert len(proofs) == 2
    assert all("factorizer=whitened" in proof for proof in proofs)
    again = harness(asked, lowrank, cwd=place)
    assert again.returncode == 0, again.stdout + again.stderr
    assert " ok in " in swept.stdout + swept.stderr
    assert " ok in " not in again.stdout + again.stderr, "everything is in the store"
    both = next(r for r in records if len(r["stages"]) == 6 and "factorize" in r["facts"])
    exported = harness(["export", f"{sweep.name}/{both['cell']}", "out"], lowrank, cwd=place)
    assert exported.returncode == 0, exported.stdout + exported.stderr
    assert (place / "out" / "config.json").is_file()


def test_a_stage_that_takes_its_name_is_named_and_neither_wins(lowrank: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(lowrank, site)
    copied = (
        (lowrank / "harness_lowrank" / "factorize.py")
        .read_text()
        .replace("from .factorizer", "from harness_lowrank.factorizer")
    )
    distribution(site, "harness-other", "other_factorize", copied)
    listed = harness(["list"], site, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert "does not load: it claims the stage factorize, and so does other_factorize" in listed.stdout


def test_an_option_of_a_stage_that_does_not_load_says_so(tmp_path: Path) -> None:
    distribution(
        tmp_path,
        "polish",
        "polish",
        """
import dataclasses, typing
from harness import Stage, hookimpl

class Polish(Stage):
    name = "polish"
    after = ("pretrain",)
    produces = "model"

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        kind: typing.Literal["dull", "bright"] = "dull"

    def run(self, work):
        return {}

@hookimpl
def harness_stages():
    return [Polish]
""",
    )
    for arguments in (["run", "polish.kind=bright"], ["plan", "stages=[corpus,polish]"]):
        refused = harness(arguments, tmp_path, cwd=tmp_path)
        assert refused.returncode == 2
        assert "Plugin 'polish' from polish 1.0 does not load: " in refused.stderr
