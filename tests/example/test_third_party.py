"""A third party's package, installed for real: listed, shown, checked, composed and swept as ours are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from third_party import distribution, harness


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory whose cache knows what is installed."""
    return tmp_path_factory.mktemp("place")


def test_it_is_listed_and_shown(example: Path, place: Path) -> None:
    listed = json.loads(harness(["list", "--json"], example, cwd=place).stdout)
    (own,) = [row for row in listed if row["package"] == "harness-topk"]
    assert set(own) == {"axis", "name", "package", "version", "summary", "paper", "status"}
    assert (own["axis"], own["name"], own["version"], own["status"]) == ("attention", "top_k", "0.1.0", "ok")
    assert own["paper"].startswith("Gupta et al. 2021, arXiv:2106.06899")
    shown = harness(["show", "attention", "top_k"], example, cwd=place).stdout
    assert "attention.k=32   (int)\n      Keys each query reads" in shown
    assert "Differs: scores are computed in full" in shown


def test_it_passes_the_conformance_suites(example: Path, place: Path) -> None:
    checked = harness(["check", "harness-topk"], example, cwd=place)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "attention=top_k" in checked.stdout
    assert " passed" in checked.stdout
    unknown = harness(["check", "harness-topkk"], example, cwd=place)
    assert unknown.returncode == 2
    assert "Did you mean 'harness-topk'?" in unknown.stderr


def test_its_experiment_is_planned_beside_the_built_ins(example: Path, place: Path) -> None:
    planned = harness(["plan", "experiment=topk_budget", "scale=smoke"], example, cwd=place)
    assert planned.returncode == 0, planned.stderr
    assert "9 cells" in planned.stdout
    shown = harness(["--cfg", "job", "attention=top_k", "attention.k=3"], example, cwd=place)
    assert "method: top_k" in shown.stdout
    assert "k: 3" in shown.stdout


@pytest.mark.slow
def test_it_is_swept_beside_the_built_ins(example: Path, tmp_path: Path) -> None:
    arguments = ["sweep", "experiment=topk_budget", "scale=smoke", "seeds=[0]"]
    swept = harness(arguments, example, cwd=tmp_path)
    assert swept.returncode == 0, swept.stdout + swept.stderr


def test_one_that_does_not_import_is_named_and_harms_nothing(example: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(example, site)
    broken = 'import triton_kernels\n\nclass Fast:\n    name = "fastest"\n'
    distribution(site, "harness-fastest", "fastest_plugin", broken)
    listed = harness(["list"], site, cwd=tmp_path)
    assert listed.returncode == 0
    assert (
        "! fastest_plugin (harness-fastest 1.0) does not load: No module named 'triton_kernels'"
        in listed.stdout
    )
    asked = harness(["--cfg", "job", "attention=top_k"], site, cwd=tmp_path)
    assert "method: top_k" in asked.stdout
    refused = harness(["run", "attention=fastest"], site, cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.strip() == (
        "harness: Plugin 'fastest_plugin' from harness-fastest 1.0 does not load: "
        "No module named 'triton_kernels'. Repair or uninstall it."
    )


def test_two_distributions_with_one_name_are_named_and_neither_wins(example: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    shutil.copytree(example, site)
    distribution(site, "harness-other", "other_topk", (example / "harness_topk/top_k.py").read_text())
    listed = harness(["list"], site, cwd=tmp_path)
    assert listed.returncode == 0, listed.stderr
    assert (
        "! harness_topk.top_k (harness-topk 0.1.0) does not load: it claims attention=top_k" in listed.stdout
    )
    assert "! other_topk (harness-other 1.0) does not load: it claims attention=top_k" in listed.stdout
    asked = harness(["run", "attention=top_k"], site, cwd=tmp_path)
    assert asked.returncode == 2
    assert "harness_topk.top_k" in asked.stderr
    assert "other_topk (harness-other 1.0)" in asked.stderr
    assert "Traceback" not in asked.stderr
