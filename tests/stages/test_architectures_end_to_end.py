"""Prefix decoder and encoder-decoder through every stage: pretrain, instruct, align, generate, evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from harness.commands.sweep import sweep
from harness.plan.make import make_plan
from harness.run.resources import Options
from harness.store import Store

CELL = (
    "tokenizer=byte",
    "objective=prefix_language_modeling",
    "instruction.skills=[say]",
    "corpus.test_share=0.2",
    "instruction.num_items=200",
    "alignment=dpo",
    "evaluator=[perplexity,lm_eval,win_rate]",
    "evaluator.perplexity.max_documents=4",
    "evaluator.lm_eval={tasks: [recall, instruction_following], limit: 8}",
    "evaluator.win_rate={max_prompts: 8, max_new_tokens: 8}",
    "model={dim: 32, num_layers: 2, num_heads: 2, head_dim: 16, ffn_dim: 48, max_length: 128}",
    "pretrain={sequence_length: 64, batch_size: 4, budget: {unit: steps, amount: 20}}",
    "instruct={learning_rate: 1e-2, sequence_length: 64, batch_size: 8, budget: {unit: steps, amount: 60}}",
    "align={sequence_length: 64, batch_size: 4, budget: {unit: steps, amount: 4}}",
    "generate={max_prompts: 4, max_new_tokens: 8}",
    "stages=[corpus,tokenizer,tokens,pretrain,instruct,align,generate,evaluate]",
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    for i in range(30):
        lines = (f"line {i + k}: the cat sat on the mat and saw {k * k} mice" for k in range(60))
        (root / f"{i}.txt").write_text("\n".join(lines))
    return root


def parts(store: Store, *overrides: str) -> dict[str, Any]:
    """What each stage of the cell left in the store, by title."""
    graph = make_plan(overrides, store=store).graph
    found = {node.title: store.find(key) for key, node in graph.nodes.items()}
    assert all(artifact is not None for artifact in found.values()), "a stage left nothing"
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "layers"), [("prefix_decoder", 0), ("encoder_decoder", 2)])
def test_it_learns_answers_and_is_measured(
    architecture: str, layers: int, texts: Path, tmp_path: Path
) -> None:
    store = Store(tmp_path / "store")
    chosen = (*CELL, "corpus=text", f"corpus.path={texts}", f"architecture={architecture}")
    chosen += (f"model.num_encoder_layers={layers}",)
    assert sweep(chosen, Options(), store=store) == 0
    found = parts(store, *chosen)
    for stage in ("pretrain", "instruct"):
        assert found[stage].facts["final_loss"] < found[stage].facts["first_loss"]
    assert found["instruct"].facts["final_loss"] < 0.7 * found["instruct"].facts["first_loss"]
    assert found["align"].facts["preferences"] > 0
    answers = pd.read_parquet(next(found["generate"].path.glob("*.parquet")))
    assert len(answers) == 4
    metrics = {m["metric"]: m["value"] for a in found.values() for m in a.facts.get("metrics", ())}
    assert {"bits_per_byte", "acc", "followed", "win_rate"} <= set(metrics)
