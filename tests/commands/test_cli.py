"""The command line as a user meets it: real processes, one message for each mistake."""

from __future__ import annotations

import json
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import warm
from third_party import distribution, environment_of, harness

from harness import cli
from harness.commands import COMMANDS
from harness.store import Store

MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "command": (["lst"], 2, "No command is called 'lst'. Did you mean 'list'?"),
    "axis": (["show", "atention"], 2, "No axis or stage is called 'atention'. Did you mean 'attention'?"),
    "method": (["show", "attention", "ful"], 2, "Did you mean 'full'?"),
    "run": (["run", "attention=gqq"], 2, "No attention method is called 'gqq'."),
    "plain": (["attention.window=3"], 2, "No option of attention=full is called 'window'"),
    "multirun": (
        ["-m", "optimizer=adamw,lyon"],
        2,
        "No optimizer method is called 'lyon'. Did you mean 'lion'?",
    ),
    "sweep": (["sweep", "seed=0,x"], 2, "seed=x: a seed is an integer"),
    "plan": (["plan", "alignment=null"], 2, "alignment=null leaves alignment undefined; use alignment=none"),
    "experiment": (["sweep", "experiment=nope"], 2, "No experiment is called 'nope'."),
    "grammar": (["run", "attention="], 2, "No attention method is called ''."),
    "check": (["check", "harness-lx"], 2, "Did you mean 'harness-lm'?"),
    "new": (["new", "attention", "Big"], 2, "'Big' is no method name; use snake_case"),
    "taken": (["new", "attention", "full", "--package", "x"], 2, "attention=full exists already"),
    "launcher": (["sweep", "seed=0,1", "hydra/launcher=slrm"], 2, "No hydra launcher is called 'slrm'"),
    "planned launcher": (["plan", "hydra/launcher=slrm"], 2, "harness: No hydra launcher is called 'slrm'"),
    "planned option": (
        ["plan", "hydra.sweeper.wrkers=2"],
        2,
        "No option of hydra.sweeper is called 'wrkers'. Did you mean 'workers'?",
    ),
    "flag": (["plan", "--cfg", "job"], 2, "--cfg is no flag of this command"),
    "time": (
        ["run", "hydra.sweeper.timeout=0"],
        2,
        "hydra.sweeper.timeout=0.0 must be positive, or null: no",
    ),
    "retry": (
        ["sweep", "seed=0,1", "hydra.sweeper.retry=fialed"],
        2,
        "No outcome for hydra.sweeper.retry is called 'fialed'. Did you mean 'failed'?",
    ),
    "letters": (
        ["plan", "name=\u00fcbung"],
        2,
        "quotes of its own within the shell's: 'name=\"\u00fcbung\"'",
    ),
    "comma": (["sweep", "seed=0,,1"], 2, "nothing stands before or after a comma; drop the comma"),
    "last comma": (["run", "stages=[corpus,]"], 2, "nothing stands before or after a comma"),
    "mode": (
        ["sweep", "seed=0,1", "hydra.mode=RUN"],
        2,
        "hydra.mode=RUN has no effect beside `harness sweep`",
    ),
    "mode of a run": (
        ["run", "hydra.mode=MULTIRUN", "attention=full,flash", "scale=smok"],
        2,
        "No scale is called 'smok'. Did you mean 'smoke'?",
    ),
    "empty range": (
        ["plan", "seed=range(3,0)"],
        2,
        "seed=range(3,0) has no value; its start must be before its stop",
    ),
    "hydra": (["sweep", "seed=0,1", "hydra.swepper.x=2"], 2, "Did you mean 'sweeper'?"),
    "store flag": (["store", "gc", "--dryrun"], 2, "--dryrun is no flag of `harness store gc`"),
    "both modes": (["sweep", "--run", "seed=0,1"], 2, "--run has no effect beside `harness sweep`"),
    "launcher of one": (
        ["run", "hydra/launcher=joblib"],
        2,
        "hydra/launcher=joblib has no effect: `harness run`",
    ),
    "job": (
        ["sweep", "seed=0,1", "hydra.job.name=x"],
        2,
        "hydra.job.name=x has no effect without a launcher",
    ),
    "no folder": (["sweep", "seed=0,1", "-cd"], 2, "--config-dir takes a folder"),
    "nothing": (["sweep", "seed=0,1", "quantizer=null"], 2, "quantizer undefined; use quantizer=none"),
    "number": (
        ["sweep", "seed=0,1", "where_chosen=3"],
        2,
        "where_chosen takes a mapping; write e.g. where_chosen={KEY",
    ),
    "layout": (["sweep", "seed=0,1", "report=peft"], 2, "`harness report SWEEP --table peft`"),
    "nested": (["plan", "experiment=team/nope"], 2, "No experiment is called 'team/nope'."),
    "device": (["run", "device=cuda"], 2, "sees no CUDA device on this machine; use device=auto"),
}

BATCH = """
import contextlib, io, json, sys
from harness.cli import main
results = []
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(arguments)
    results.append([code, out.getvalue(), err.getvalue()])
print(json.dumps(results))
"""


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str | int]]:
    """Every mistake, made in one process (starting one costs seconds)."""
    folder = tmp_path_factory.mktemp("mistakes")
    asked = json.dumps([arguments for arguments, _, _ in MISTAKES.values()])
    done = warm.run(["-c", BATCH, asked], cwd=folder, environment=os.environ)
    assert done.returncode == 0, done.stderr
    left = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    remembered = {Path(".harness/cache", name) for name in ("contents.json", "fingerprints.json")}
    assert left <= remembered, "a refused command left more behind than what a plan remembers of files"
    return dict(zip(MISTAKES, json.loads(done.stdout.splitlines()[-1]), strict=True))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_gets_one_message(name: str, mistakes: dict[str, list[str]]) -> None:
    _, code, message = MISTAKES[name]
    found, out, err = mistakes[name]
    assert message in err
    assert err.startswith("harness: ")
    assert "Traceback" not in err
    assert (found, out) == (code, "")


@pytest.mark.parametrize(
    ("stated", "spins"), [({}, "3000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, "")]
)
def test_threads_that_wait_leave_the_core_to_others(
    stated: dict[str, str], spins: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in stated.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    assert cli.main(["--version"]) == 0
    assert os.environ.get("GOMP_SPINCOUNT", "") == spins


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory whose cache knows what is installed."""
    return tmp_path_factory.mktemp("place")


def test_a_real_process_ends_the_same_way(place: Path) -> None:
    refused = harness(["optimizer=lyon"], cwd=place, start=True)
    assert refused.returncode == 2
    assert refused.stderr.startswith("harness: No optimizer method is called 'lyon'. Did you mean 'lion'?")


def test_hydras_own_flags_pass_through(place: Path) -> None:
    job = harness(["run", "--cfg", "job", "--resolve", "attention=flash", "seed=3"], cwd=place)
    assert job.returncode == 0, job.stderr
    assert "seed: 3" in job.stdout
    assert "method: flash" in job.stdout
    paths = harness(["--info", "searchpath"], cwd=place)
    assert "structured://" in paths.stdout


@pytest.mark.parametrize("level", ["4 bit", "'4 bit'"])
def test_one_level_of_a_factor_is_swept_by_its_name(
    level: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from harness.commands import hydra, sweep
    from harness.plan.make import make_plan

    asked: list[str] = []
    monkeypatch.setattr(sweep, "multirun", lambda arguments, *_, **__: asked.extend(arguments))
    hydra.sweep(["experiment=demo", f"bits={level}", "alignment=dpo", "tuning=full,lora"])
    cells = make_plan(asked, store=Store(tmp_path)).cells
    assert {tuple(cell.levels.values()) for cell in cells} == {
        ("full", "dpo", "4 bit"),
        ("lora", "dpo", "4 bit"),
    }


@pytest.mark.parametrize(
    "line",
    [
        "quantizer=rtn,gptq quantizer.bits=3",  # no quantizer is there by default
        "evaluator=[perplexity],[lm_eval] seed=0,1 pretrain.budget={unit:steps,amount:2}",
        "evaluator=[lm_eval] evaluator.lm_eval.tasks='[recall,two words]' peft=lora,dora peft.rank=4",
        "optimizer@instruct.optimizer=adamw,lion instruct.optimizer.weight_decay=0.3",
        "experiment=quantizers quantizer=rtn,hqq quantizer.bits=4",
        "experiment=demo alignment=dpo,ppo align.learning_rate=1e-4 corpus.stdlib.max_bytes=null",
        "corpus=text corpus.path='\"a, b.txt\"' scale=smoke,mini evaluate.max_length=64",
    ],
)
def test_a_sweep_is_asked_for_what_was_typed(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra composes what cells share before it sweeps; options of swept methods have no place in that."""
    from harness.commands import hydra, sweep
    from harness.plan.factors import request

    typed = shlex.split(line)
    asked: list[str] = []
    monkeypatch.setattr(sweep, "multirun", lambda arguments, *_, **__: asked.extend(arguments))
    hydra.sweep(typed)
    assert request(asked) == request(typed)


@pytest.mark.parametrize(
    ("place", "flag"), [(0, ["hydra.searchpath=[DIR]"]), (0, ["--config-dir", "DIR"]), (2, ["-cd=DIR"])]
)
def test_flags_may_stand_among_overrides(
    place: int, flag: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from harness.commands import hydra, sweep

    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text("# @package _global_\nseeds: [0, 1]\n")
    asked: list[str] = []
    monkeypatch.setattr(sweep, "multirun", lambda arguments, *_, **__: asked.extend(arguments))
    typed = ["experiment=mine", "scale=smoke", "attention=full,flash"]
    typed[place:place] = [text.replace("DIR", str(tmp_path)) for text in flag]
    hydra.sweep(typed)
    assert asked == ["experiment=mine", "scale=smoke", "attention=full,flash"]


@pytest.mark.parametrize("flags", [["--cfg", "job", "--package", "seed"], ["--info", "defaults"]])
def test_a_sweep_shows_the_config_of_its_first_cell(
    flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", "seed=3,4", *flags, "attention=flash,full"]) == 0
    shown = capsys.readouterr().out
    assert shown.strip() == "3" if "seed" in flags else "attention/flash" in shown


def test_a_plan_says_that_this_machine_lacks_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may be made where a launcher will place it; what runs here is refused (see `MISTAKES`)."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert cli.main(["plan", "device=cuda", "stages=[corpus]", "--json"]) == 0
    assert any(
        "no CUDA device on this machine" in note for note in json.loads(capsys.readouterr().out)["notes"]
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert cli.main(["plan", "device=cuda", "stages=[corpus]", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["notes"] == []


def test_an_experiment_whose_file_is_meant_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "mine.yaml").write_text("# @package _global_\nseeds: [0]\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", "experiment=conf/mine"]) == 2
    assert "the file of that name is read by experiment=./conf/mine.yaml" in capsys.readouterr().err


def test_words_complete_on_tab(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMP_LINE", "harness sweep attention=f")
    monkeypatch.setenv("COMP_POINT", "25")
    completed = harness(["-sc", "query=bash"], cwd=place)
    assert completed.stdout.split() == ["attention=flash", "attention=full"]


def test_list_is_fast_once_its_index_exists(place: Path) -> None:
    first = json.loads(harness(["list", "--json"], cwd=place).stdout)
    assert set(first[0]) == {"axis", "name", "package", "version", "summary", "paper", "status"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    again = harness(["list", "--json"], cwd=place, start=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert json.loads(again.stdout) == first
    # Processor time, not the clock: other tests share the cores.
    seconds = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    imported = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "harness", "list"],
        cwd=place,
        env=environment_of(cwd=place),
        capture_output=True,
        text=True,
        check=True,
    )
    print(f"harness list: {seconds:.2f} s")
    assert seconds < 1.0
    assert not any(line.endswith(("| torch", "| hydra")) for line in imported.stderr.splitlines())


def test_every_command_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {command}" in text for command in cli.COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = cli.main([name, "--help"])
    except SystemExit as leaving:
        code = leaving.code
    assert code == 0
    assert capsys.readouterr().out.startswith(f"usage: harness {name} ")


def test_debug_shows_where(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HARNESS_DEBUG", "1")
    assert cli.main(["lst"]) == 2
    assert "Traceback" in capsys.readouterr().err


LOUD = '''
import atexit, os, subprocess, sys
from harness import Schedule, hookimpl

def shout(word):
    print(word)
    sys.__stdout__.write(word + "\\n")
    os.write(1, (word + "\\n").encode())
    subprocess.run(["echo", word])

shout("imported")
atexit.register(shout, "bye")

class Loud(Schedule):
    """Says what it does."""
    name = "loud"
    @classmethod
    def check(cls, config, cell, meta_model):
        shout("checked")
        return ()

@hookimpl
def harness_methods():
    return [Loud]
'''


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments", [["list"], ["show", "schedule", "loud"], ["plan", "schedule=loud", "scale=smoke"]]
)
def test_json_is_all_that_a_command_prints_whatever_plugins_do(arguments: list[str], tmp_path: Path) -> None:
    distribution(tmp_path, "harness-loud", "harness_loud", LOUD)
    done = harness([*arguments, "--json"], tmp_path, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    if arguments[0] == "plan":
        assert {"imported", "checked", "bye"} <= set(done.stderr.split())


def test_json_goes_where_a_caller_put_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    from harness.cli import main

    assert main(["list", "schedule", "--json"]) == 0
    assert "cosine" in {row["name"] for row in json.loads(capsys.readouterr().out)}
    print("as before")
    assert capsys.readouterr().out == "as before\n"


@pytest.mark.parametrize("limit", [700 * 1024, resource.RLIM_INFINITY])
def test_no_bytecode_is_written_where_a_limit_would_cut_it_off(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut file stops every later import of its module, here and in whatever shares the environment."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (limit, limit))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "")
    assert cli.main(["--version"]) == 0
    limited = limit != resource.RLIM_INFINITY
    assert sys.dont_write_bytecode == limited
    assert os.environ["PYTHONDONTWRITEBYTECODE"] == "1" * limited
