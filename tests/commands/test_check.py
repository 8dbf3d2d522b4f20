"""`harness check`: which suites of a package it hands to pytest, and of what."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from harness.commands.check import main
from harness.errors import HarnessError


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What pytest would be called with."""
    found: list[str] = []
    monkeypatch.setattr(subprocess, "call", lambda command: found.extend(command) or 0)
    return found


@pytest.mark.parametrize(
    ("asked", "suites"),
    [
        (["norm=rmsnorm"], {"test_methods", "test_norm", "test_pairs"}),
        (["norm", "stage=prune"], {"test_methods", "test_norm", "test_pairs", "test_stages"}),
        (["position"], {"test_methods", "test_position", "test_pairs", "test_long_decoding"}),
        (["optimizer=lion"], {"test_methods", "test_optimizer"}),
        (["stage=dither"], {"test_stages"}),
    ],
)
def test_a_part_of_a_package_can_be_named(asked: list[str], suites: set[str], handed: list[str]) -> None:
    only = [part for name in asked for part in ("--only", name)]
    assert main(["harness-lm", *only, "--", "-x", "-k", "a or b"]) == 0
    assert {Path(part).stem for part in handed if part.endswith(".py")} == suites
    assert [part for part in handed if "--only" in part] == [f"--only={name}" for name in asked]
    assert "-x -k a or b" in " ".join(handed)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--only", "norm=rms_norm"], "of harness-lm is called 'norm=rms_norm'. Did you mean 'norm=rmsnorm'"),
        (["--only", "norm=none"], "of harness-lm is called 'norm=none'"),
        (["--", "-k", "norm=rmsnorm"], "pytest takes words there, and no '='; use --only norm=rmsnorm"),
    ],
)
def test_what_it_cannot_name_is_refused(arguments: list[str], says: str, handed: list[str]) -> None:
    with pytest.raises(HarnessError, match=says):
        main(["harness-lm", *arguments])
    assert not handed
