"""A record's model is the one that was measured: same numbers an item, same texts, or a reason why not."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import harness
from harness.commands.models import model_key
from harness.errors import ChangedError, ConfigError, StoreError
from harness.model.artifact import restore
from harness.stages.evaluate import _documents
from harness.store import Store
from harness.store.records import read_record, record_dir

BASE = {
    "scale": "smoke",
    "evaluator": ["perplexity", "generation"],
    "evaluator.generation.prompts": "documents",
    "evaluator.generation.max_new_tokens": 8,
    "evaluator.perplexity.max_documents": 4,
    "pretrain.budget.amount": 40,  # after 2 steps the likeliest token is a special one, and no text comes out
    "evaluate.threads": 1,
}
BUILT = "[corpus,tokenizer,tokens,pretrain"
CELLS: dict[str, dict[str, Any]] = {
    "plain": {"stages": f"{BUILT},evaluate]"},
    "quantized": {"stages": f"{BUILT},quantize,evaluate]", "quantizer": "rtn"},
    "merged": {"stages": f"{BUILT},instruct,evaluate]", "peft": "lora"},
    "unmerged": {
        "stages": f"{BUILT},quantize,instruct,evaluate]",
        "peft": "lora",
        "quantizer": "nf4",
    },
    "extended": {"stages": f"{BUILT},extend,evaluate]", "context": "yarn"},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


def asked(name: str) -> dict[str, Any]:
    return {**BASE, **CELLS[name], "name": name}


def measured_again(loaded: Any, frame: pd.DataFrame, store: Path) -> pd.DataFrame:
    """Perplexity an item, by the evaluator over the loaded model."""
    cell = frame["cell"].iloc[0]
    record = read_record(record_dir(store, sweep=frame["sweep"].iloc[0], cell=cell))
    corpus = next(s["key"] for s in record["stages"] if s["stage"] == "corpus")
    loaded.subject.documents = partial(_documents, Store(store).get(corpus).path)
    node = dict(record["config"]["evaluator"]["perplexity"])
    choice = restore({"axis": "evaluator", "method": node.pop("method"), "config": node})
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return choice.build().evaluate("perplexity", loaded.subject).samples
    finally:
        torch.set_num_threads(before)


def check(frame: pd.DataFrame, store: Path) -> Any:
    """The loaded model scores and says what the samples hold."""
    assert set(frame["outcome"]) == {"ok"}, frame["reason"].iloc[0]
    row = frame.iloc[0]
    samples = harness.load_samples(row, store=store)
    loaded = harness.load_model(row, store=store)
    scored = samples[samples["evaluator"] == "perplexity"]
    again = measured_again(loaded, frame, store)
    assert list(again["doc_hash"]) == list(scored["doc_hash"])
    assert np.array_equal(again["loss"].to_numpy(), scored["loss"].to_numpy())
    drawn = samples[samples["evaluator"] == "generation"]
    assert drawn["answer"].str.len().sum() > 0, "nothing was said, so nothing would be compared"
    torch.set_num_threads(1)
    assert loaded.answer(list(drawn["prompt"]), max_new_tokens=8) == list(drawn["answer"])
    model, tokenizer = loaded
    inputs = loaded.encode(drawn["prompt"].iloc[0])
    out = model.generate(**inputs, max_new_tokens=8, do_sample=False)
    new = out[0, inputs["input_ids"].shape[1] :]
    assert tokenizer.decode(new, skip_special_tokens=True) == drawn["answer"].iloc[0]
    return loaded


@pytest.mark.parametrize(
    "name", ["plain", *(pytest.param(n, marks=pytest.mark.slow) for n in CELLS if n != "plain")]
)
def test_a_loaded_model_is_the_one_that_was_measured(name: str, store: Path) -> None:
    loaded = check(harness.run(asked(name), store=store), store)
    carries = any("lora" in parameter for parameter, _ in loaded.model.named_parameters())
    assert carries == (name == "unmerged")


@pytest.mark.slow
def test_a_pretrained_model_loads_as_it_was_measured(store: Path, tmp_path: Path) -> None:
    made = harness.run(asked("plain"), store=store)
    model, tokenizer = harness.load_model(made, store=store)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    given = {"model": "pretrained", "model.path": str(tmp_path / "model"), "stages": "[corpus,evaluate]"}
    frame = harness.run({**BASE, **given, "name": "given"}, store=store)
    check(frame, store)
    (tmp_path / "model" / "generation_config.json").write_text("{}")
    with pytest.raises(ChangedError):
        harness.load_model(frame, store=store)


def test_a_cell_is_named_in_every_way_that_a_reader_has_it(store: Path) -> None:
    frame = harness.run(asked("plain"), store=store)
    cell = frame["cell"].iloc[0]
    folder = record_dir(store, sweep="plain", cell=cell)
    ways = [f"plain/{cell}", f"plain/{cell[:6]}", str(folder), frame, frame.iloc[0], read_record(folder)]
    ways += [next(frame.itertuples()), frame.iloc[0].to_dict()]
    first = harness.load_samples(ways[0], store=store)
    assert {"evaluator", "task", "prompt", "answer", "target", "loss"} <= set(first.columns)
    assert not first[["prompt", "answer", "target"]].isna().any().any()
    for way in ways[1:]:
        pd.testing.assert_frame_equal(harness.load_samples(way, store=store), first)
    with pytest.raises(StoreError, match="No single record is called 'plain/ffff'"):
        harness.load_model("plain/ffff", store=store)
    with pytest.raises(ConfigError, match="int names no cell"):
        harness.load_model(3, store=store)


def test_what_was_collected_says_so_and_how_to_make_it_again(store: Path, tmp_path: Path) -> None:
    frame = harness.run(asked("plain"), store=store)
    less = tmp_path / "less"
    shutil.copytree(store, less)
    where = Store(less)
    record = read_record(record_dir(less, sweep="plain", cell=frame["cell"].iloc[0]))
    shutil.rmtree(where.path(model_key(record, where)))
    with pytest.raises(StoreError, match=r"of stage pretrain, is not in .*`harness reproduce plain/"):
        harness.load_model(frame, store=less)
    assert len(harness.load_samples(frame, store=less))


def test_a_report_shows_as_a_table(store: Path) -> None:
    frame = harness.run(asked("plain"), store=store)
    pd.testing.assert_frame_equal(harness.records("plain", store=store), frame)
    made = harness.report(frame, store=store)
    assert (made.folder / "index.html").is_file()
    assert made._repr_html_().startswith("<h4>")
    means = made.frame.set_index("metric")["mean"]
    bits = frame.set_index("metric")["value"]["bits_per_byte"]
    assert means["perplexity.perplexity.bits_per_byte"] == pytest.approx(bits, rel=1e-5)
