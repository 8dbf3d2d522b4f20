"""A method is imported when it is looked up; a plugin that no longer keeps what the index says is named."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import warm
from third_party import Folder

from harness.compose.describe import describe
from harness.errors import PluginError
from harness.registry.known import Registry, registry

MINE = '''
"""A test method."""
from harness import Method, Schedule, hookimpl


class Mine(Schedule):
    """Says what it is."""

    name = "mine"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Mine]
'''
OBSERVER = "\n\n@hookimpl\ndef harness_cell_finished(run, record):\n    pass\n"
CHOSEN_ALONE = """
import sys
from harness.compose import compose

cell = compose(["attention=sliding_window", "optimizer=lion"])
assert cell.choice("attention").method.name == "sliding_window"
print(*(name for name in sys.modules if name.startswith("harness_plugins.")))
"""


def index_of(known: Registry) -> dict[str, Any]:
    """What `harness.registry.index` keeps of a registry, as far as another is made of it."""
    methods = [describe(method, known) for method in known.all() if method.name != "none"]
    broken = [
        {**asdict(item.source), "cause": item.cause, "offers": sorted(item.offers)}
        for item in known.quarantined
    ]
    eager = [asdict(source) for source in known.eager]
    return {"methods": methods, "eager": eager, "quarantined": broken, "printed": []}


def indexed_alone(folder: Folder, content: str) -> Registry:
    """A registry of one plugin, made of its index in a process that has not imported it."""
    index = index_of(Registry.load([folder.plugin("late_plugin", content)]))
    sys.modules.pop("late_plugin", None)
    return Registry.indexed(index)


def test_a_method_is_imported_when_it_is_looked_up(folder: Folder) -> None:
    known = indexed_alone(folder, MINE)
    assert list(known.methods("schedule")) == ["mine"]
    assert known.sources()["schedule", "mine"].module == "late_plugin"
    assert "late_plugin" not in sys.modules
    method = known.get("schedule", "mine")
    assert method is known.get("schedule", "mine") is sys.modules["late_plugin"].Mine  # type: ignore[attr-defined]
    assert known.source(method).module == "late_plugin"


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ("import nowhere\n", "No module named 'nowhere'"),
        ("import sys\nsys.exit(3)\n", "SystemExit: 3"),
        (MINE.replace('"mine"', '"other"'), "it no longer brings schedule=mine"),
    ],
    ids=["import", "exit", "another method"],
)
def test_a_plugin_that_breaks_its_promise_is_named(folder: Folder, content: str, cause: str) -> None:
    known = indexed_alone(folder, MINE)
    (folder.path / "late_plugin.py").write_text(content + "# changed, and of another size\n")
    with pytest.raises(PluginError, match="Plugin 'late_plugin' from late_plugin 0 does not load") as error:
        known.get("schedule", "mine")
    assert cause in str(error.value)


def test_what_observes_runs_is_loaded_at_once(folder: Folder) -> None:
    known = indexed_alone(folder, MINE + OBSERVER)
    assert "late_plugin" in sys.modules
    assert len(known.hook.harness_cell_finished.get_hookimpls()) == 1
    assert known.get("schedule", "mine") is sys.modules["late_plugin"].Mine  # type: ignore[attr-defined]


def test_a_quarantined_plugin_is_named_without_running_it(folder: Folder) -> None:
    known = indexed_alone(folder, "import nowhere\n" + MINE)
    assert "late_plugin" not in sys.modules
    with pytest.raises(PluginError, match=r"late_plugin.*No module named 'nowhere'"):
        known.get("schedule", "mine")


def test_both_ways_know_the_same_methods_in_the_same_order() -> None:
    eager, lazy = Registry.load(), registry()
    assert list(lazy.axes) == list(eager.axes)
    assert list(lazy.stages) == list(eager.stages)
    for axis in eager.axes:
        assert list(lazy.methods(axis)) == list(eager.methods(axis))
        for name, method in eager.methods(axis).items():
            assert lazy.sources()[axis, name] == eager.source(method)


def test_composing_imports_the_chosen_methods_alone() -> None:
    done = warm.run(["-c", CHOSEN_ALONE], cwd=Path.cwd(), environment=os.environ)
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    assert {"harness_plugins.attention.sliding_window", "harness_plugins.optimizer.lion"} <= imported
    assert not imported & {"harness_plugins.attention.full", "harness_plugins.optimizer.adamw"}
