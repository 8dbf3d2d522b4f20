"""The notebook of docs/ runs from its first cell to its last."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[2] / "docs" / "python.ipynb"


def read() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_the_notebook_is_committed_without_outputs() -> None:
    nbformat.validate(read())
    assert all(not cell.get("outputs") for cell in read().cells)


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HARNESS_STORE", str(tmp_path / "store"))
    made = nbclient.NotebookClient(read(), timeout=600, kernel_name="python3").execute(cwd=str(tmp_path))
    shown = {cell.source: cell.outputs for cell in made.cells if cell.cell_type == "code"}
    for source in ("harness.plan(asked)", "report = harness.report(frame)\nreport"):
        assert "<table" in shown[source][-1].data["text/html"]
    mistake = next(outputs for source, outputs in shown.items() if "gqq" in source)
    assert "No attention method is called 'gqq'" in mistake[0].text
