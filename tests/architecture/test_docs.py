"""The documentation: links lead somewhere, every axis and stage has its page, examples run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from third_party import distribution, harness

from harness.commands import COMMANDS, reference
from harness.registry.known import registry

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *sorted(DOCS.rglob("*.md")),
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")),
]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def links(page: Path) -> Iterator[str]:
    """Links within the repository."""
    for link in LINK.findall(prose(page)):
        if not urlsplit(link).scheme:
            yield link


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called, as Python-Markdown makes it of them."""
    texts = (re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in HEADING.findall(prose(page)))
    return {re.sub(r"[-\s]+", "-", text) for text in texts}


def leads_nowhere(page: Path, link: str) -> bool:
    parts = urlsplit(link)
    target = page.parent / unquote(parts.path) if parts.path else page
    if not target.is_file():
        # The site shows files; a folder is for whoever reads the README beside the tree.
        return page.parent != ROOT or not target.is_dir()
    return bool(parts.fragment) and parts.fragment not in anchors(target)


def fences(page: Path, language: str) -> Iterator[str]:
    for found, text in FENCE.findall(page.read_text(encoding="utf-8")):
        if found == language:
            yield text


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in links(page) if leads_nowhere(page, link)] == []


def test_the_map_of_the_house_names_what_is_there_and_nothing_else() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`.*?) \|", text.partition("## The map")[2].partition("\n## ")[0], re.MULTILINE)
    named = {path.rstrip("/") for row in rows for path in re.findall(r"`([^`]+)`", row) if "<" not in path}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
    rooms = subprocess.run(
        ["git", "ls-files", "harness", "plugins"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    there = {"/".join(Path(room).parts[:2]) for room in rooms}
    untold = {room for room in there if not room.rpartition("/")[2].startswith(("__", "py.typed"))} - named
    assert untold - {"plugins/harness_plugins"} == set()  # its row is a pattern: <axis>/<method>.py


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# A title\n[a](#a-title) [b](#no-title) [c](page.md#a-title) [d](none.md) [e](https://none)"
    )
    assert [link for link in links(page) if leads_nowhere(page, link)] == ["#no-title", "none.md"]


def test_every_built_in_axis_and_stage_has_its_page() -> None:
    known = registry()
    own = {method.axis for method in known.all() if known.source(method).package == "harness-lm"}
    assert {page.stem for page in (DOCS / "axes").glob("*.md")} == own | {"index"}
    assert {page.stem for page in (DOCS / "stages").glob("*.md")} == set(reference.stages()) | {"index"}
    assert set(reference.stages()) >= {"corpus", "pretrain", "evaluate"}


def test_every_page_stands_in_the_navigation() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in sorted(DOCS.rglob("*.md")):
        where = str(page.relative_to(DOCS))
        assert where in listed or f"{page.parent.name}/*" in listed, f"mkdocs.yml does not list {where}"


@pytest.mark.parametrize("page", sorted((DOCS / "write").glob("*.md")), ids=name)
def test_python_examples_run(page: Path) -> None:
    for number, code in enumerate(fences(page, "python")):
        made = compile(code, f"{name(page)}, example {number}", "exec", dont_inherit=True)
        exec(made, {"__name__": f"example_{number}"})


def test_the_axis_and_the_stage_of_the_examples_are_planned_together(tmp_path: Path) -> None:
    for module, page in (("perturbation", "axis.md"), ("perturb", "stage.md")):
        code = next(fences(DOCS / "write" / page, "python"))
        distribution(tmp_path, f"harness-{module}", module, code)
    asked = ["plan", "perturbation=none,shrink_and_perturb", "scale=smoke", "--json"]
    planned = harness(asked, tmp_path, cwd=tmp_path)
    assert planned.returncode == 0, planned.stdout + planned.stderr
    assert '"perturb"' in planned.stdout


@pytest.mark.parametrize("page", ["tracker.md", pytest.param("quantizer.md", marks=pytest.mark.slow)])
def test_a_method_of_the_examples_passes_its_suite(page: str, tmp_path: Path) -> None:
    distribution(tmp_path, "harness-shown", "shown", next(fences(DOCS / "write" / page, "python")))
    checked = harness(["check", "harness-shown"], tmp_path, cwd=tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_yaml_examples_can_be_read(page: Path) -> None:
    for text in fences(page, "yaml"):
        assert isinstance(yaml.safe_load(text), dict)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_examples_call_commands_that_exist(page: Path) -> None:
    typed = [line for text in fences(page, "console") for line in text.splitlines()]
    called = {match[1] for line in typed if (match := re.search(r"\$ (?:\w+=\S+ )*harness (\w+)", line))}
    assert called <= set(COMMANDS), f"{name(page)} calls {sorted(called - set(COMMANDS))}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_a_shell_would_read_itself_is_quoted(page: Path) -> None:
    typed = [line for text in fences(page, "console") for line in text.splitlines() if "$ harness " in line]
    bare = [re.sub(r"'[^']*'|\"[^\"]*\"", "", line.partition("  #")[0]) for line in typed]
    assert not [line for line in bare if re.search(r"[][{}*;|&<>]", line)]
