"""The performance report: the last measurement of each table, and whether the machine was busy."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import bench
import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def performance() -> Any:
    spec = importlib.util.spec_from_file_location(
        "performance", ROOT / "tests" / "benchmarks" / "performance.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_benchmarks_show_becomes_a_page(
    performance: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = tmp_path / "bench.jsonl"
    monkeypatch.setenv(bench.RAW, str(lines))
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (0.1, 0.1, 0.1))
    bench.show("Loop", ("loop", "tokens/s"), [("bare", 100.0)], raw={"bare": [1.0, 2.0]})
    bench.show("Loop", ("loop", "tokens/s"), [("bare", 250.0)], raw={"bare": [0.4]})
    monkeypatch.setattr(bench.os, "getloadavg", lambda: (99.0, 9.0, 9.0))
    bench.show("LoRA", ("training", "times"), [("ours", 1.5)])
    performance.main(lines, tmp_path / "out")
    page = (tmp_path / "out" / "README.md").read_text()
    assert "| bare | 250 |" in page
    assert "| bare | 100 |" not in page, "a table that was measured again stands once"
    loop, lora = page.split("## Loop")[1].split("## LoRA")
    assert "beside other work" not in loop
    assert "beside other work (a load of 99.0" in lora
    raw = json.loads((tmp_path / "out" / "raw.json").read_text())
    assert raw["tables"][0]["raw"] == {"bare": [1.0, 2.0]}
    assert raw["environment"]["torch"]
