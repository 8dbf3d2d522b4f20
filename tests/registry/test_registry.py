"""Plugins load one by one; one that does not is named, and takes nothing down with it."""

from __future__ import annotations

import pytest
from third_party import Folder

from harness.errors import PluginError, UnknownNameError
from harness.registry.known import Registry, registry

METHOD = '''
"""A test method."""
from dataclasses import dataclass
from harness import {base}, Method, hookimpl


class Mine({base}):
    """Says what it is."""

    name = "{name}"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Mine]
'''


def test_all_built_in_plugins_load() -> None:
    assert [str(broken) for broken in registry().quarantined] == []


def test_a_plugin_brings_its_method(folder: Folder) -> None:
    entry = folder.plugin("good_plugin", METHOD.format(base="Schedule", name="mine"))
    known = Registry.load([entry])
    assert known.get("schedule", "mine").name == "mine"
    assert known.source(known.get("schedule", "mine")).module == "good_plugin"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (('"""A test', 'import nowhere\n"""A test'), "No module named 'nowhere'"),
        (("def harness", "def (harness"), "SyntaxError"),
        (('    name = "mine"', "    name = 1 / 0"), "ZeroDivisionError: division by zero"),
        (("def harness_methods", "def harness_metods"), "harness_metods"),
        (("return [Mine]", "return [int]"), "no Method class"),
        (("return [Mine]", "raise OSError('disk')"), "disk"),
        (("harness_methods()", "harness_methods(wrong)"), "wrong"),
        (
            ('    name = "mine"', '    name = "mine"\n    class Config: pass'),
            "Config must inherit Schedule.Config",
        ),
    ],
    ids=["import", "syntax", "exception", "misspelt hook", "no method", "failing hook", "argument", "config"],
)
def test_a_broken_plugin_is_quarantined_with_its_cause(
    folder: Folder, change: tuple[str, str], cause: str
) -> None:
    good = folder.plugin("good_plugin", METHOD.format(base="Schedule", name="mine"))
    content = METHOD.format(base="Schedule", name="mine").replace(*change)
    known = Registry.load([folder.plugin("bad_plugin", content), good])
    assert "mine" in known.methods("schedule")
    (broken,) = known.quarantined
    assert cause in broken.cause
    assert str(broken).startswith("Plugin 'bad_plugin' from bad_plugin 0 does not load: ")


def test_asking_for_what_a_quarantined_plugin_offers_names_it(folder: Folder) -> None:
    content = METHOD.format(base="Schedule", name="lost").replace('"""A test', 'import nowhere\n"""A test')
    known = Registry.load([folder.plugin("bad_plugin", content)])
    with pytest.raises(PluginError, match=r"'bad_plugin'.* does not load: No module named 'nowhere'"):
        known.get("schedule", "lost")
    with pytest.raises(UnknownNameError, match="No schedule method is called 'other'"):
        known.get("schedule", "other")


def test_of_two_plugins_with_one_name_neither_wins(folder: Folder) -> None:
    entries = [folder.plugin(f"plugin_{i}", METHOD.format(base="Schedule", name="mine")) for i in (1, 2)]
    known = Registry.load([*entries, folder.plugin("plugin_3", METHOD.format(base="Norm", name="mine"))])
    assert "mine" not in known.methods("schedule")
    assert known.get("norm", "mine").name == "mine"
    with pytest.raises(
        PluginError, match=r"'plugin_1'.* claims schedule=mine, and so does plugin_2 \(plugin_2 0\)"
    ):
        known.get("schedule", "mine")


def test_a_plugin_may_add_an_axis_with_methods_of_others(folder: Folder) -> None:
    axis = '''
from harness import Method, hookimpl

class Watermark(Method):
    """Marks generated text."""
    axis = "watermark"
    default = "none"
    optional = True
    stages = ("generate",)

@hookimpl
def harness_axes():
    return [Watermark]
'''
    method = METHOD.format(base="Watermark", name="green").replace(
        "from harness import Watermark,", "from axis_plugin import Watermark\nfrom harness import"
    )
    entries = [folder.plugin("method_plugin", method), folder.plugin("axis_plugin", axis)]
    known = Registry.load(entries)
    assert list(known.axes)[-1] == "watermark"
    assert list(known.methods("watermark")) == ["none", "green"]


def test_an_optional_axis_has_none_without_options() -> None:
    none = registry().get("quantizer", "none")
    assert none.changes == none.provides == frozenset()
    assert none.summary() == "No quantizer: what this axis does is left out."
