"""Tokens a second of rollouts against transformers' `generate`, and what a shared pass saves, in one run."""

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from bench import in_turn, median_ratio, show
from transformers import LlamaConfig, LlamaForCausalLM

from harness.evaluation.sampling import plain_sampling
from harness.model.artifact import open_model
from harness.stages._adaptation import adapt
from harness.stages._rollouts import RolloutSource
from harness.stages.align import reference_of

pytestmark = pytest.mark.slow

SAMPLES, NEW_TOKENS = 32, 24


def source_of(root: Path) -> RolloutSource:
    """Rollouts of a model of about 1 M parameters that has learned nothing, so that its answers are long."""
    tiny.byte_tokenizer(root / "hf")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tiny.VOCABULARY,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=256,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(root / "hf")
    shelf = tiny.Shelf(root / "shelf")
    options = [
        "model=pretrained",
        f"model.path={root / 'hf'}",
        "instruction.num_items=200",
        "alignment=grpo",
        "peft=lora",
        "reward=rules",
        f"align.batch_size={SAMPLES}",
        f"align.max_new_tokens={NEW_TOKENS}",
    ]
    work = tiny.work(shelf, "align", shelf.new("out"), options, {})
    adapted = adapt(open_model(work, trainable=True), work.one("peft"))
    method: Any = work.one("alignment").build()
    return RolloutSource(work, adapted, method, reference_of(work, adapted))


def test_rollouts_are_as_fast_as_generate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(tmp_path)
    model: Any = source.adapted.model.eval()
    items = [source.prompts[i // 4] for i in range(SAMPLES)]
    rows = [source.template.prompt_ids(item.turns) for item in items]
    width = max(map(len, rows))
    ids_BT = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    mask_BT = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    tokens: dict[str, int] = {}

    @torch.no_grad()
    def generate() -> None:
        torch.manual_seed(0)
        with plain_sampling(model, temperature=1.0, end_ids=source.end_ids, pad_id=0):
            out = model.generate(input_ids=ids_BT, attention_mask=mask_BT, max_new_tokens=NEW_TOKENS)
        tokens["transformers' generate"] = int((out[:, width:] != 0).sum())

    def sample() -> None:
        found = source._sample(items, seed=0, from_start=False)
        tokens["harness's rollouts"] = sum(map(len, found.answers))

    found = in_turn({"transformers' generate": generate, "harness's rollouts": sample}, rounds=5)
    table = [(name, tokens[name], tokens[name] / min(seconds)) for name, seconds in found.items()]
    show(
        f"Sampling {SAMPLES} answers of at most {NEW_TOKENS} tokens, with their rewards",
        ("", "tokens", "tokens/s"),
        table,
    )
    ratio = median_ratio(found, "transformers' generate", "harness's rollouts")
    print(f"\nrollouts / generate: {ratio:.2f}")

    learned, shared = RolloutSource._learned, RolloutSource._draw

    def draw_anew(size: int) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(
                RolloutSource, "_learned", lambda self, *a, **k: (*learned(self, *a, **k)[:2], None)
            )
            shared(source, size)

    draws = in_turn(
        {"a pass of its own": lambda: draw_anew(SAMPLES), "shared": lambda: shared(source, SAMPLES)}, rounds=5
    )
    saved = median_ratio(draws, "a pass of its own", "shared")
    print(f"a rollout whose log-probabilities take a pass of their own / shared: {saved:.2f}")
    assert ratio > 0.85
    assert saved > 1.1
