"""Plugins that load but are wrong: each is quarantined under its name, and no command minds the others."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace

import numpy
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from third_party import Folder, distribution, harness

from harness.axes import BUILTIN
from harness.compose import compose, config_dir
from harness.compose.describe import describe_stage
from harness.compose.schema import Root, stage_key
from harness.errors import PluginError
from harness.method import Choice
from harness.plan.problems import problems
from harness.registry import index as registry_index
from harness.registry.checks import ROOT_KEYS, check_name
from harness.registry.known import Registry, registry
from harness.registry.modules import blaming
from harness.surroundings import SHARED

OPTIONS = '''
import dataclasses, enum, typing
import torch
from harness import Method, Schedule, hookimpl

class Mine(Schedule):
    """Says what it is."""
    name = "mine"
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Config(Schedule.Config):
        {field}

@hookimpl
def harness_methods():
    return [Mine]
'''
AXIS = '''
from harness import Attention, Method, Schedule, hookimpl

class Contract(Method):
    """Marks text."""
    axis = "watermark"
    default = "none"
    optional = True

class Green(Contract):
    """Marks it green."""
    name = "green"

@hookimpl
def harness_axes():
    return [Contract]

@hookimpl
def harness_methods():
    return [Green]
'''


@pytest.mark.parametrize(
    ("field", "cause"),
    [
        (
            "scale: typing.Any = dataclasses.field(default_factory=lambda: torch.ones(2))",
            "cannot be published",
        ),
        ("scale: torch.Tensor = None", "cannot be published"),
        ("scale: complex = 1j", "cannot be published"),
        (
            "scale: list[int] | dict[str, int] = dataclasses.field(default_factory=list)",
            "cannot be published",
        ),
        ("scale: typing.Literal['a', 'b'] = 'a'", "name the choices in an Enum"),
        ("scale: 'Nowhere' = 1", "name 'Nowhere' is not defined"),
        ("scale: bytes = b'a'", "Config.scale=b'a' is no plain value"),
        ("scale: int = 'three'", "cannot be published"),
        ("method: str = 'a'", "an option cannot be called `method`"),
        ("defaults: int = 1", "an option cannot be called `defaults`"),
        ("_hidden: int = 1", "an option cannot be called `_hidden`"),
        ("scale: int = 1\n        def __post_init__(self): 1 / 0", "Config() raises ZeroDivisionError"),
    ],
)
def test_options_that_cannot_be_published(folder: Folder, field: str, cause: str) -> None:
    bad = folder.plugin("bad_options", OPTIONS.format(field=field))
    known = Registry.load([bad, folder.plugin("good_axis", AXIS)])
    (broken,) = known.quarantined
    assert cause in str(broken)
    assert str(broken).startswith("Plugin 'bad_options' from bad_options 0 does not load: ")
    assert "mine" not in known.methods("schedule")
    assert list(known.methods("watermark")) == ["none", "green"]


@pytest.mark.parametrize(
    "name",
    [
        "5",
        "'../../evil'",
        "'a,b=c'",
        "'null'",
        "'True'",
        "''",
        "'a b'",
        "'a-b'",
        "None",
        "'4bit'",
        "'x\\n'",
        "'x' * 65",
    ],
)
def test_names_that_a_command_line_cannot_hold(folder: Folder, name: str) -> None:
    for line in ("name = 'green'", "axis = 'watermark'"):
        content = AXIS.replace('"', "'").replace("'''", '"""').replace(line, f"{line.split()[0]} = {name}")
        (broken,) = Registry.load([folder.plugin(f"bad_{line[:4]}", content)]).quarantined
        assert "is no name; use letters, digits and _" in broken.cause or "class has no axis" in broken.cause


@pytest.mark.parametrize("name", ["gptq", "LoRA", "x8", "a_b"])
def test_names_that_it_can_hold_are_one_word_to_hydra(name: str) -> None:
    check_name(name, "name")
    parsed = OverridesParser.create().parse_override(f"{name}.{name}={name}")
    assert (parsed.key_or_group, parsed.value()) == (f"{name}.{name}", name)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (('axis = "watermark"', 'axis = "attention"'), "claims the axis attention, and so does harness.axes"),
        (('axis = "watermark"', 'axis = "seed"'), "'seed' is a key of every config"),
        (('axis = "watermark"', 'axis = "experiment"'), "'experiment' is a key of every config"),
        (
            ('axis = "watermark"', 'axis = "pretrain"'),
            "the axis pretrain would take the config key of the stage of harness.stages",
        ),
        (('axis = "watermark"', 'axis = "reward_stage"'), "'reward_stage' ends in _stage"),
        (('default = "none"', 'default = "red"'), "Contract.default: no watermark method is called 'red'"),
        (('default = "none"', "default = 3"), "Contract.default=3"),
        (('default = "none"', 'default = ("none",)'), "it must be one name"),
        (("optional = True", "optional = 'yes'"), "optional='yes'; it must be True or False"),
        (("optional = True", "many = True"), "it must be a tuple of names"),
        (('name = "green"', 'name = "none"'), "'none' of watermark is provided by harness"),
        (
            ('name = "green"', 'name = "green"\n    axis = "watermrk"'),
            "No axis is called 'watermrk'. Did you mean",
        ),
        (
            ('name = "green"', 'name = "green"\n    changes = "text"'),
            "changes='text'; it must be a frozenset",
        ),
        (('name = "green"', 'name = "green"\n    requires = {"text"}'), "it must be a frozenset of strings"),
        (
            ('name = "green"', 'name = "green"\n    stages = "generate"'),
            "it must be a tuple of stages' names",
        ),
        (
            ('name = "green"', 'name = "green"\n    extra = 3'),
            "Green.extra=3; it names an optional dependency",
        ),
        (('name = "green"', 'name = "green"\n    Config = int'), "Config must"),
        (('"""Marks it green."""', "__doc__ = 5"), "__doc__ is no text"),
        (("return [Green]", "return [Green, Same]"), "claims watermark=green, and so does bad_axis"),
        (("@hookimpl\ndef harness_axes", "raise SystemExit(3)\ndef harness_axes"), "SystemExit: 3"),
        (("return [Green]", "raise SystemExit"), "SystemExit"),
    ],
)
def test_classes_that_could_not_stand_in_a_config(
    folder: Folder, change: tuple[str, str], cause: str
) -> None:
    assert change[0] in AXIS
    content = AXIS.replace(*change).replace(
        "@hookimpl\ndef harness_axes",
        "class Same(Contract):\n    name = 'green'\n\n@hookimpl\ndef harness_axes",
    )
    own = entry_points(group="harness", name="stages")
    (broken,) = Registry.load([folder.plugin("bad_axis", content), *own]).quarantined
    assert cause in broken.cause


STAGE = """
from dataclasses import dataclass
from harness.stage import Stage
from harness import hookimpl

class Thin(Stage):
    name = "thin"
    after = ("align",)
    before = ("quantize",)
    axes = ("peft",)
    needs = ("model",)
    produces = "model"

    @dataclass(frozen=True, kw_only=True)
    class Config(Stage.Config):
        share: float = 0.5

    def run(self, work):
        return {}

@hookimpl
def harness_stages():
    return [Thin]
"""


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (('name = "thin"', "name = 5"), "Thin.name=5 is no name"),
        (('name = "thin"', 'name = "thin@b"'), "is no name"),
        (('name = "thin"', 'name = "seed"'), "'seed' is a key of every config"),
        (
            ('name = "thin"', 'name = "quantize"'),
            "claims the stage quantize, and so does harness.stages.quantize",
        ),
        (('    name = "thin"\n', ""), "Thin.name=None is no name"),
        (('produces = "model"', "pass"), "Thin.produces=None is no name"),
        (('after = ("align",)', 'after = "align"'), "Thin.after='align'; it must be a tuple"),
        (
            ('after = ("align",)', 'after = ("evaluate",)'),
            "Thin stands after evaluate and before quantize, which other stages",
        ),
        (('axes = ("peft",)', 'axes = ("thinner",)'), "Thin.axes: No axis is called 'thinner'"),
        (("share: float = 0.5", "share: complex = 1j"), "cannot be published"),
        (("share: float = 0.5", "peft: float = 0.5"), "['peft'] would stand where the stage's own axes"),
        (("def run(self", "def walk(self"), "Thin has no `run`"),
        (("return [Thin]", "return [int]"), "which is no Stage class"),
    ],
)
def test_stages_that_could_not_be_placed(folder: Folder, change: tuple[str, str], cause: str) -> None:
    assert change[0] in STAGE
    own = [*entry_points(group="harness", name="stages")]
    good = Registry.load([folder.plugin("good_stage", STAGE), *own])
    assert [*good.stages].index("thin") == [*good.stages].index("quantize") - 1
    known = Registry.load([folder.plugin("bad_stage", STAGE.replace(*change)), *own])
    (broken,) = known.quarantined
    assert cause in broken.cause
    assert [*known.stages] == [name for name in good.stages if name != "thin"]


@pytest.mark.parametrize(
    ("declared", "cause"),
    [
        ("moves_facts = (('share', 'counts'),)", None),
        (
            "moves_facts = {'share': 'counts'}",
            "it must be a tuple of pairs, each an option of ['threads', 'share']",
        ),
        ("moves_facts = (('shares', 'counts'),)", "it must be a tuple of pairs, each an option of"),
        ("decontaminates = 'share'", None),
        ("decontaminates = True", "Thin.decontaminates=True; it must be one of ['threads', 'share']"),
    ],
)
def test_what_a_stage_says_to_reports_is_held_to_its_options(declared: str, cause: str | None) -> None:
    names: dict[str, object] = {}
    exec(STAGE.replace('name = "thin"', f'name = "thin"\n    {declared}'), names)
    known = SimpleNamespace(axes={}, stage_source=lambda name: SimpleNamespace(package="", version=""))
    if cause is None:
        assert describe_stage(names["Thin"], known)["key"] == "thin"  # type: ignore[arg-type]
        return
    with pytest.raises(PluginError, match=re.escape(cause)):
        describe_stage(names["Thin"], known)  # type: ignore[arg-type]


def test_the_index_says_where_the_options_of_a_stage_stand() -> None:
    for name, stage in registry_index.read()["stages"].items():
        assert stage["key"] == stage_key(name)


def test_a_method_that_a_built_in_has_already_keeps_the_built_in(folder: Folder) -> None:
    content = AXIS.replace("class Green(Contract)", "class Green(Schedule)").replace('"green"', '"cosine"')
    known = Registry.load()
    assert known.source(known.get("schedule", "cosine")).package == "harness-lm"
    known = Registry.load([folder.plugin("bad_cosine", content), *entry_points(group="harness")])
    assert known.source(known.get("schedule", "cosine")).package == "harness-lm"
    (broken,) = known.quarantined
    assert (
        "it claims schedule=cosine, and so does harness_plugins.schedule.cosine (harness-lm" in broken.cause
    )


def test_a_method_on_the_axis_of_a_broken_plugin_says_so(folder: Folder) -> None:
    method = '''
from harness import Method, hookimpl

class Red(Method):
    """Marks it red."""
    axis = "watermark"
    name = "red"

@hookimpl
def harness_methods():
    return [Red]
'''
    broken_axis = folder.plugin("bad_axis", AXIS.replace("from harness", "import nowhere\nfrom harness"))
    known = Registry.load([folder.plugin("red_plugin", method), broken_axis])
    causes = {broken.source.module: broken.cause for broken in known.quarantined}
    assert causes["bad_axis"] == "No module named 'nowhere'"
    assert causes["red_plugin"].startswith(
        "Red is on no axis: Plugin 'bad_axis' from bad_axis 0 does not load"
    )
    with pytest.raises(PluginError, match="'bad_axis'"):
        known.methods("watermark")


def test_conf_folders_must_exist(folder: Folder) -> None:
    content = "from harness import hookimpl\n\n@hookimpl\ndef harness_conf():\n    return ['pkg://harness.nothing']\n"
    (broken,) = Registry.load([folder.plugin("bad_conf", content)]).quarantined
    assert "'pkg://harness.nothing', which is no folder of an installed package" in broken.cause


def test_two_entry_points_may_name_one_module(folder: Folder) -> None:
    entry = folder.plugin("good_axis", AXIS)
    again = type(entry)(name="again", value=entry.value, group="harness")
    assert Registry.load([entry, again]).quarantined == []


def test_the_names_that_axes_cannot_have_are_all_of_the_root_config() -> None:
    groups = {path.name for path in config_dir().iterdir() if path.is_dir()}
    keys = {f.name for f in dataclasses.fields(Root)} | {"model"} | groups
    assert keys - set(BUILTIN) <= set(ROOT_KEYS)
    assert not set(registry().stages) & set(ROOT_KEYS)


DEADLY = {
    "exits": "import sys\nsys.exit(3)\n",
    "interrupts": "raise KeyboardInterrupt\n",
    "dies": "import os\nos._exit(7)\n",
    "crashes": "import os\nprint('about to crash', flush=True)\nos.kill(os.getpid(), 11)\n",
    "sleeps": "import time\ntime.sleep(3600)\n",
    "stays": "import threading\nthreading.Thread(target=threading.Event().wait, name='own').start()\n",
    "prints": "import os\nprint('hello')\nos.system('echo from a shell')\n" + AXIS,
    "undescribed": AXIS.replace("watermark", "signature").replace(
        '    name = "green"',
        '    name = "green"\n\n    @classmethod\n    def summary(cls):\n        raise SystemExit',
    ),
    "letters": AXIS.replace("watermark", "initial")
    .replace("_key", "_initial_key")
    .replace('name = "green"', 'name = "green"\n    moves_facts = "tokens"'),
    "stage": STAGE.replace('name = "thin"', 'name = "thin"\n    decontaminates = True'),
}
CAUSES = {
    "exits": "SystemExit: 3",
    "interrupts": "KeyboardInterrupt",
    "dies": "it ended the process that imported it with exit code 7",
    "crashes": "it ended the process that imported it with signal SIGSEGV: about to crash",
    "sleeps": "it takes longer than 6 s (HARNESS_PLUGIN_TIMEOUT=60 would wait longer)",
    "stays": "it starts the thread 'own' when it is imported, which would keep every command from ending; "
    "start it where it is used, or with daemon=True",
    "undescribed": "Green cannot be described: SystemExit",
    "letters": "Green cannot be described: Green.moves_facts='tokens'; it must be a frozenset of strings",
    "stage": "Thin cannot be described: Thin.decontaminates=True; it must be one of ['threads', 'share']",
}


@pytest.mark.parametrize(
    "words",
    [("exits", "stays", "prints", "stage"), pytest.param(tuple(DEADLY), marks=pytest.mark.slow)],
    ids=len,
)
def test_plugins_that_exit_die_or_hang_are_named_and_harm_nothing(
    words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever happens at import happens once, in a child: the index says what, and no command imports it."""
    monkeypatch.setenv("HARNESS_PLUGIN_TIMEOUT", "6")
    site = tmp_path / "site"
    site.mkdir()
    for word in words:
        distribution(site, f"harness-{word}", f"{word}_plugin", DEADLY[word])
    listed = harness(["list", "--json"], site, cwd=tmp_path, start=True)
    assert listed.returncode == 0, listed.stderr
    rows = json.loads(listed.stdout)
    status = {row["package"]: row["status"] for row in rows if not row["axis"]}
    causes = {word: CAUSES[word] for word in words if word in CAUSES}
    assert status == {f"harness-{word}": f"does not load: {cause}" for word, cause in causes.items()}
    assert {row["name"] for row in rows if row["package"] == "harness-prints"} == {"none", "green"}
    waited = "'sleeps_plugin' from harness-sleeps 1.0 has been loading for 5 s; stopped after 6 s"
    assert listed.stderr == (f"harness: plugin {waited}\n" if "sleeps" in words else "")
    composed = harness(["--cfg", "job", "watermark=green"], site, cwd=tmp_path)
    assert composed.returncode == 0, composed.stderr
    assert "method: green" in composed.stdout
    assert "hello" not in composed.stdout
    for word in words:
        if word in CAUSES:
            asked = harness(["run", f"attention={word}_plugin"], site, cwd=tmp_path)
            assert asked.returncode == 2
            assert asked.stderr == (
                f"harness: Plugin '{word}_plugin' from harness-{word} 1.0 does not load: {CAUSES[word]}. "
                "Repair or uninstall it.\n"
            )


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (
            ZeroDivisionError("division by zero"),
            r"fails: ZeroDivisionError: division by zero .*; repair it, or",
        ),
        (PluginError("as it is"), "^as it is$"),
    ],
)
def test_what_no_user_can_have_meant_is_blamed_on_whose_code_it_is(raised: Exception, said: str) -> None:
    with pytest.raises(PluginError, match=said), blaming("check of attention=own (own_plugin)"):
        raise raised


def test_a_check_that_gives_no_problem_names_its_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    method = registry().get("attention", "full")
    monkeypatch.setattr(method, "check", classmethod(lambda cls, config, cell, model: ["wrong"]))
    with pytest.raises(PluginError, match=r"attention=full \(.*\) fails: TypeError: 'wrong' is no Problem"):
        problems(compose([]))


SHARED_BY_ALL = {
    "os.chdir('/')": "the working directory",
    "signal.signal(signal.SIGINT, signal.SIG_IGN)": "the answer to SIGINT",
    "sys.stdout = None": "sys.stdout",
    "sys.stderr = open(os.devnull, 'w')": "sys.stderr",
    "sys.excepthook = print": "sys.excepthook",
    "warnings.simplefilter('error')": "which warnings are errors",
    "os.environ['OMP_NUM_THREADS'] = '64'": "OMP_NUM_THREADS in the environment",
    "random.seed(0)": "the seed of Python's random numbers",
    "numpy.random.seed(0)": "the seed of numpy's random numbers",
    "torch.manual_seed(0)": "the seed of torch's random numbers",
    "torch.set_default_dtype(torch.float64)": "torch's default dtype",
    "torch.set_float32_matmul_precision('medium')": "the precision of torch's products",
    "torch.use_deterministic_algorithms(True)": "whether torch is deterministic",
    "torch.set_grad_enabled(False)": "whether torch keeps gradients",
    "torch.set_num_threads(torch.get_num_threads() + 1)": "the number of torch's threads",
    "torch.set_default_device('meta')": "torch's default device",
    "numpy.seterr(all='raise')": "numpy's answer to faulty numbers",
}
BUSYBODY = "import os, random, signal, sys, warnings\nimport numpy, torch\n"


@pytest.fixture
def seeded_apart() -> None:
    """Random numbers that stand where no plugin's seed would put them."""
    random.seed(987)
    numpy.random.seed(987)
    torch.manual_seed(987)


@pytest.mark.usefixtures("seeded_apart")
@pytest.mark.parametrize("statement", SHARED_BY_ALL)
def test_what_all_share_is_no_plugins_to_change_by_being_imported(folder: Folder, statement: str) -> None:
    before = [(one, one.read()) for one in SHARED]
    known = Registry.load(
        [
            folder.plugin("busybody", BUSYBODY + statement + "\n" + AXIS),
            folder.plugin("good", OPTIONS.format(field="scale: int = 1")),
        ]
    )
    (broken,) = known.quarantined
    assert f"it changes {SHARED_BY_ALL[statement]} when it is imported" in broken.cause
    assert "mine" in known.methods("schedule")
    assert all(one.same(was, one.read()) for one, was in before)


@pytest.mark.usefixtures("seeded_apart")
@pytest.mark.parametrize("statement", [text for text in SHARED_BY_ALL if "seed" in text])
def test_a_hook_that_seeds_for_all_is_named_and_the_numbers_go_on_as_before(
    folder: Folder, statement: str
) -> None:
    def drawn() -> list[float]:
        return [random.random(), float(numpy.random.rand()), float(torch.rand(()))]

    states = random.getstate(), numpy.random.get_state(), torch.get_rng_state()
    expected = drawn()
    random.setstate(states[0])
    numpy.random.set_state(states[1])
    torch.set_rng_state(states[2])
    content = OPTIONS.format(field="scale: int = 1").replace("    return", f"    {statement}\n    return")
    (broken,) = Registry.load([folder.plugin("seeding", "import random, numpy\n" + content)]).quarantined
    assert f"it changes {SHARED_BY_ALL[statement]} when harness_methods is called" in broken.cause
    assert drawn() == expected


def test_a_plugin_that_only_draws_numbers_loads(folder: Folder) -> None:
    draws = "import random, numpy\n[random.random() for _ in range(2000)], numpy.random.rand(2000)\n"
    known = Registry.load([folder.plugin("drawing", draws + OPTIONS.format(field="scale: int = 1"))])
    assert not known.quarantined


def test_what_all_share_is_set_back_where_the_import_fails(folder: Folder) -> None:
    before = os.getcwd()
    (broken,) = Registry.load([folder.plugin("lost", "import os\nos.chdir('/')\n1 / 0")]).quarantined
    assert "ZeroDivisionError" in broken.cause
    assert os.getcwd() == before


def test_a_method_that_changes_it_when_it_is_built_is_named(folder: Folder) -> None:
    content = OPTIONS.format(field="scale: int = 1").replace(
        '    name = "mine"\n',
        '    name = "mine"\n    def __init__(self, config): torch.set_default_dtype(torch.float64)\n',
    )
    method = Registry.load([folder.plugin("builder", content)]).get("schedule", "mine")
    choice = Choice(axis="schedule", method=method, config=method.Config())
    with pytest.raises(PluginError, match="it changes torch's default dtype when schedule=mine is built"):
        choice.build()
    assert torch.get_default_dtype() == torch.float32
