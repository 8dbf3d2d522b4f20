"""Provenance: which code of harness and of the user made a number."""

import subprocess
from pathlib import Path

import pytest

from harness.run import provenance


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def repository(folder: Path, *files: str) -> Path:
    """A repository with these files in one commit."""
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", "one")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout of harness, as far as git sees it."""
    return repository(tmp_path / "harness-lm", "harness/__init__.py", "reports/demo/table.csv", ".gitignore")


def test_a_clean_checkout_is_its_commit(checkout: Path) -> None:
    found = provenance.of_harness(checkout)
    assert found == {"commit": git(checkout, "rev-parse", "HEAD"), "dirty": False, "diff": ""}
    (checkout / "reports/demo/table.csv").write_text("made anew by this very sweep")
    assert provenance.of_harness(checkout) == found, "reports decide no result"


def test_changes_are_told_apart_tracked_or_not(checkout: Path) -> None:
    diffs = {provenance.of_harness(checkout)["diff"]}
    for name, text in (("__init__", "a"), ("__init__", "b"), ("new", "a"), ("new", "b")):
        (checkout / "harness" / f"{name}.py").write_text(text)
        found = provenance.of_harness(checkout)
        assert found["dirty"]
        diffs.add(found["diff"])
    assert len(diffs) == 5


def test_changes_are_seen_whatever_they_are_written_in(checkout: Path) -> None:
    (checkout / "harness/__init__.py").write_bytes("gr\u00fc\u00dfe".encode("latin-1"))
    first = provenance.of_harness(checkout)
    assert first["dirty"], "text that is not UTF-8 is a change too"
    (checkout / "harness" / "gr\u00fc\u00dfe.py").write_text("a")
    second = provenance.of_harness(checkout)
    (checkout / "harness" / "gr\u00fc\u00dfe.py").write_text("b")
    third = provenance.of_harness(checkout)
    (checkout / "harness" / "data.bin").write_bytes(b"x" * (provenance.LARGEST + 1))
    assert len({found["diff"] for found in (first, second, third, provenance.of_harness(checkout))}) == 4


def test_a_hook_of_another_repository_names_not_that_one(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = repository(tmp_path / "other", "a")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    found = provenance.of_harness(checkout)
    monkeypatch.delenv("GIT_DIR")
    monkeypatch.delenv("GIT_WORK_TREE")
    assert found["commit"] == git(checkout, "rev-parse", "HEAD")


def test_what_git_does_not_tell_is_not_called_clean(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ask = provenance._git
    monkeypatch.setattr(
        provenance, "_git", lambda root, *words: None if words[0] == "diff" else ask(root, *words)
    )
    found = provenance.of_harness(checkout)
    assert (found["dirty"], found["diff"]) == (True, provenance.UNKNOWN)


def test_a_wheel_in_a_user_s_project_is_not_the_project_s_commit(tmp_path: Path) -> None:
    project = repository(tmp_path / "study", "study.yaml", ".gitignore")
    (project / ".gitignore").write_text(".venv/\n")
    installed = project / ".venv" / "site-packages"
    (installed / "harness").mkdir(parents=True)
    (installed / "harness" / "__init__.py").write_text("")
    found = provenance.of_harness(installed)
    assert (found["commit"], len(found["wheel"])) == ("", 16)


def test_the_user_s_project_is_recorded_beside_harness(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = repository(tmp_path / "study", "runs/first/study.yaml")
    clean = provenance.of_project(project / "runs" / "first")
    assert clean == {"commit": git(project, "rev-parse", "HEAD"), "dirty": False, "diff": ""}
    (project / "plugin.py").write_text("x = 1\n")
    assert provenance.of_project(project / "runs")["dirty"]
    assert provenance.of_project(tmp_path) == {}
    monkeypatch.setattr(provenance, "ROOT", checkout)
    assert provenance.of_project(checkout / "harness") == {}, "harness itself is recorded anyway"


def test_a_record_names_this_very_code() -> None:
    found = provenance.provenance(0.0)
    assert found["git"] == provenance.of_harness(Path(__file__).parents[2])
    assert found["plugins"]["harness-lm"] == found["harness"]
