"""The adaptation experiments at full scale: their overlays plan on a LLaMA by its path, without a network."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
import tiny_models as tiny

from harness.plan.make import make_plan
from harness.store import Store

SCALE = ["scale=full", "seeds=[0]"]

pytestmark = pytest.mark.slow

ROWS = {
    "alpaca_data.json": '[{"instruction": "Say yes.", "input": "", "output": "yes"}]',
    "flan_v2.jsonl": '{"inputs": "Say yes.", "targets": "yes", "task": "say"}\n',
    "wizardlm_70k.json": '[{"instruction": "Say yes twice.", "input": "", "output": "yes yes"}]',
    "moss.jsonl": '{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
    "alpaca_farm_eval.json": '[{"instruction": "Say no.", "input": "", "output": "no"}]',
    "sharegpt.json": '[{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}]',
}
"""The data sets that the overlays expect in the folder `data`, with one row each."""


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").mkdir()
    for name, text in ROWS.items():
        (tmp_path / "data" / name).write_text(text)
    pair = {side: f"\n\nHuman: a\n\nAssistant: {side}" for side in ("chosen", "rejected")}
    (tmp_path / "data" / "hh_train.jsonl.gz").write_bytes(gzip.compress(json.dumps(pair).encode()))
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("experiment", "levels", "cells"),
    [
        ("quantizers", "quantizer='16 bit','gptq 4','nf4'", 3),
        ("peft", "peft=untuned,full,lora,'prefix tuning'", 4),
        ("peft_x_quantizer", "quantizer='16 bit','nf4'", 6),
        ("alignment", "alignment=none,dpo,kto,ppo,grpo", 5),
    ],
)
def test_an_experiment_plans_on_a_llama_by_path(
    experiment: str, levels: str, cells: int, tmp_path: Path
) -> None:
    path = tiny.pretrained(tmp_path / "llama")
    made = make_plan(
        [f"experiment={experiment}", *SCALE, f"model.path={path}", levels], store=Store(tmp_path / "store")
    )
    assert len(made.cells) == cells
    assert [cell.refused for cell in made.cells] == [""] * cells
    assert {cell.cell.model_path() for cell in made.cells} == {str(path)}


def test_table_nine_plans_on_two_llamas(tmp_path: Path) -> None:
    small, large = tiny.pretrained(tmp_path / "7b"), tiny.pretrained(tmp_path / "13b", seed=1)
    sizes = f"factors.size={{small: {{model.path: {small}}}, large: {{model.path: {large}}}}}"
    made = make_plan(["experiment=instruction_tuning", *SCALE, sizes], store=Store(tmp_path / "store"))
    assert [cell.refused for cell in made.cells] == [""] * 18


def test_the_compute_table_plans_the_shapes_of_llama(tmp_path: Path) -> None:
    made = make_plan(
        ["experiment=compute", *SCALE, "model='LLaMA 7B','LLaMA 65B'"], store=Store(tmp_path / "store")
    )
    assert [cell.refused for cell in made.cells] == [""] * 8
    assert {cell.cell.config["parallelism"]["num_processes"] for cell in made.cells} == {8, 16}


def test_table_ten_plans_on_two_llamas_tuned_on_three_data_sets(tmp_path: Path) -> None:
    small, large = tiny.pretrained(tmp_path / "7b"), tiny.pretrained(tmp_path / "13b", seed=1)
    sizes = f"factors.size={{small: {{model.path: {small}}}, large: {{model.path: {large}}}}}"
    made = make_plan(["experiment=quantization", *SCALE, sizes], store=Store(tmp_path / "store"))
    assert [cell.refused for cell in made.cells] == [""] * 18
    assert {tuple(cell.cell.stages) for cell in made.cells} == {
        ("corpus", "instruct", "quantize", "evaluate")
    }
