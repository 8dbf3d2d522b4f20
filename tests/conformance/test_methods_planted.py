"""Planted bugs that the suite of every method must find."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, make_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from told import told

from harness import Schedule
from harness.conformance import test_methods as suite

GOOD = '''"""A method."""

from harness import Method, Schedule, hookimpl


class Planted(Schedule):
    """Says what it is."""

    name = "planted"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Planted]
'''


def load(source: str, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = "planted_plugin") -> Any:
    """The class of a plugin file with this text."""
    path = folder / "planted.py"
    path.write_text(source)
    module = ModuleType(name)
    module.__file__ = str(path)
    monkeypatch.setitem(sys.modules, name, module)
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module.__dict__["Planted"]


def test_a_sound_method_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = load(GOOD, tmp_path, monkeypatch)
    suite.test_it_says_what_it_is(sound)
    suite.test_its_hook_stands_last(sound)
    suite.test_it_imports_only_the_public_surface(sound)
    suite.test_it_imports_heavy_libraries_only_when_used(sound)
    suite.test_every_option_says_what_it_means(sound)


@pytest.mark.parametrize(
    ("test", "old", "new"),
    [
        ("test_it_says_what_it_is", '    """Says what it is."""\n', ""),
        ("test_its_hook_stands_last", "return [Planted]\n", "return [Planted]\n\n\nLIMIT = 3\n"),
        (
            "test_it_imports_only_the_public_surface",
            "from harness import",
            "import harness.store\nfrom harness import",
        ),
        (
            "test_it_imports_only_the_public_surface",
            "from harness import",
            "from harness_plugins.schedule.cosine import Cosine\nfrom harness import",
        ),
        (
            "test_it_imports_heavy_libraries_only_when_used",
            "from harness import",
            "import optuna\nfrom harness import",
        ),
    ],
)
def test_a_planted_bug_in_a_file_is_found(
    test: str, old: str, new: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = load(GOOD.replace(old, new, 1), tmp_path, monkeypatch)
    with told():
        getattr(suite, test)(planted)


def test_a_file_of_another_name_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = load(GOOD, tmp_path, monkeypatch, name="harness_plugins.schedule.other")
    with pytest.raises(AssertionError, match=r"harness_plugins\.schedule\.other defines schedule=planted"):
        suite.test_its_file_bears_its_name(planted)


def test_an_option_without_meaning_is_found() -> None:
    class Silent(Schedule):
        """Says what it is, its option does not."""

        name = "silent"

        @dataclass(frozen=True, kw_only=True)
        class Config(Schedule.Config):
            knob: float = 1.0

    with pytest.raises(AssertionError, match="knob"):
        suite.test_every_option_says_what_it_means(Silent)


def test_a_mutable_or_opaque_option_is_found() -> None:
    class Opaque(Schedule):
        """A config that cannot be frozen or written down."""

        name = "opaque"

    knob = ("knob", Any, field(default_factory=object))
    Opaque.Config = make_dataclass("Config", [knob])  # type: ignore[misc]
    with told():
        suite.test_the_config_is_frozen(Opaque)
    with pytest.raises(AssertionError, match="knob"):
        suite.test_its_defaults_are_plain_values(Opaque)


def test_an_unpublished_method_is_found() -> None:
    class Impostor(Schedule):
        """Takes the name of another."""

        name = "cosine"

    with told():
        suite.test_a_config_round_trips_through_hydra(Impostor)
