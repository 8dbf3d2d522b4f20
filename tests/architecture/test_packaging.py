"""What the distribution promises: its version, its commands, its pins, its hooks."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from harness.commands import scaffold

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
GIT = ("git", "-c", "user.name=Tester", "-c", "user.email=tester@example.org", "-c", "commit.gpgsign=false")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with what decides on the version, in no repository."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def version(tree: Path) -> str:
    command = [sys.executable, "-m", "hatchling", "version"]
    environment = {"PATH": "/usr/bin:/bin", "GIT_CEILING_DIRECTORIES": str(tree.parent)}
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(tree: Path, *, tag: str | None = None) -> None:
    subprocess.run([*GIT, "init", "-q"], cwd=tree, check=True)
    subprocess.run([*GIT, "add", "."], cwd=tree, check=True)
    subprocess.run([*GIT, "commit", "-q", "--allow-empty", "-m", "Change"], cwd=tree, check=True)
    if tag:
        subprocess.run([*GIT, "tag", tag], cwd=tree, check=True)


def test_the_version_is_the_tag(tree: Path) -> None:
    commit(tree, tag="v1.2.3")
    assert version(tree) == "1.2.3"


def test_commits_behind_a_tag_count_up_to_the_next_version(tree: Path) -> None:
    commit(tree, tag="v1.2.3")
    commit(tree)
    assert version(tree) == "1.2.4.dev1"


def test_a_clone_without_tags_and_an_archive_have_a_version(tree: Path) -> None:
    assert version(tree) == "0.1.0.dev0"
    commit(tree)
    assert version(tree) == "0.1.0.dev1"


@pytest.mark.parametrize("made_by", ["plugins/example", "plugins/example_stage", "harness new"])
def test_a_package_of_a_third_party_installs_beside_a_checkout(made_by: str) -> None:
    """Whose version comes before the first release: `>=0.1` would ask an index for that release."""
    file = ROOT / made_by / "pyproject.toml"
    text = file.read_text() if file.is_file() else scaffold.project("mine", "mine", "norm", "mine")
    (asked,) = map(Requirement, tomllib.loads(text)["project"]["dependencies"])
    assert asked.name == PROJECT["name"]
    assert all(asked.specifier.contains(found) for found in ("0.1.0.dev0", "0.1.0.dev7", "0.1.0", "1.2.3"))


def test_a_source_distribution_keeps_its_version(tree: Path) -> None:
    """PKG-INFO, which a source distribution carries, is believed before the fallback."""
    (tree / "PKG-INFO").write_text("Metadata-Version: 2.4\nName: harness-lm\nVersion: 7.8.9\n")
    assert version(tree) == "7.8.9"


def test_a_command_is_named_as_the_distribution() -> None:
    """`pipx run` and `uvx` look for it."""
    assert PROJECT["scripts"][PROJECT["name"]] == PROJECT["scripts"]["harness"]


def test_building_asks_for_the_backend_and_the_source_of_its_version_alone() -> None:
    tables = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    backend = tables["build-system"]["build-backend"].partition(".")[0]
    asked = {Requirement(text).name for text in tables["build-system"]["requires"]}
    assert asked == {backend, f"hatch-{tables['tool']['hatch']['version']['source']}"}


def test_everything_that_is_asked_for_is_pinned() -> None:
    pins = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            name, number = line.split("==")
            pins[_normal(name)] = number
    asked = [
        *PROJECT["dependencies"],
        *(text for group in PROJECT["optional-dependencies"].values() for text in group),
    ]
    own_index = {"torch"}  # its build depends on the machine: the Makefile names it
    for requirement in map(Requirement, asked):
        name = _normal(requirement.name)
        if name not in {PROJECT["name"], *own_index}:
            assert name in pins, f"{requirement} has no line in constraints.txt"
            assert requirement.specifier.contains(pins[name]), f"constraints.txt pins {name}=={pins[name]}"


def test_pre_commit_runs_what_make_lint_runs() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe is not None
    lint = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe.group(1).splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0][
        "hooks"
    ]
    assert [hook["entry"].removeprefix("env ") for hook in hooks] == lint


def test_the_citation_can_be_read() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["license"] == PROJECT["license"]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
