"""Every context method on every family of transformers: a pair computes what it should, or is refused.

What runs is extended, read beyond its trained length, trained a step, saved and loaded, scored and decoded,
and exported as transformers reads it, or refused in words.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.commands.compare import _write_model
from harness.compose import compose, publish
from harness.conformance._language import END, PAD, tokenizer
from harness.errors import IncompatibleError
from harness.evaluation.requests import ScoreRequest
from harness.evaluation.scoring import LikelihoodScorer
from harness.model.artifact import describe, load_pretrained
from harness.ops.decode import Job, decode
from harness.ops.drawing import Rule
from harness.plan.problems import problems
from harness.registry.known import registry

TRAINED, LONG = 64, 100
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": TRAINED}
OWN = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": TRAINED,
}
LIKE_LLAMA = {**OWN, "intermediate_size": 48, "num_key_value_heads": 2}
EXPERTS = {**LIKE_LLAMA, "num_experts_per_tok": 2}
WIDE = {**LIKE_LLAMA, "head_dim": 8}
KINDS = ["sliding_attention", "full_attention"]
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": GPT,
    "gptj": {**GPT, "rotary_dim": 4},
    "codegen": {**GPT, "rotary_dim": 4},
    "gpt_bigcode": GPT,
    "gpt_neox": {**OWN, "intermediate_size": 48, "rotary_pct": 0.5},
    "opt": {**OWN, "ffn_dim": 48, "word_embed_proj_dim": 32},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4},
    "falcon": OWN,
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": TRAINED, "expansion_ratio": 2},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "llama": LIKE_LLAMA,
    "mistral": {**LIKE_LLAMA, "sliding_window": 24},
    "mixtral": {**EXPERTS, "num_local_experts": 4},
    "qwen2": LIKE_LLAMA,
    "qwen3": WIDE,
    "qwen3_moe": {**WIDE, "num_experts_per_tok": 2, "num_experts": 4, "moe_intermediate_size": 16},
    "gemma": WIDE,
    "gemma2": {**WIDE, "sliding_window": 16, "query_pre_attn_scalar": 8},
    "gemma3_text": {**WIDE, "sliding_window": 16, "query_pre_attn_scalar": 8, "layer_types": KINDS},
    "phi": {**LIKE_LLAMA, "partial_rotary_factor": 0.5},
    "phi3": LIKE_LLAMA,
    "stablelm": {**LIKE_LLAMA, "partial_rotary_factor": 0.5},
    "glm": WIDE,
    "olmo2": LIKE_LLAMA,
    "smollm3": {**LIKE_LLAMA, "no_rope_layers": [1, 0]},
    "gpt_oss": {**WIDE, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16},
}
NARROW: dict[str, list[str]] = {
    "rerope": ["context.window=16"],
    "leaky_rerope": ["context.window=16"],
    "lambda_window": ["context.window=16", "context.sinks=4", "context.limit=16"],
    "streaming": ["context.window=16"],
    "external_memory": ["context.window=16", "context.k=8"],
}
METHODS = [name for name in registry().methods("context") if name != "none"]
FOLLOWING = ("dynamic_ntk", "longrope", "parallel_context_windows")
"""What a token reads depends on how long its sequence was when it was read."""


def pairs() -> Iterator[Any]:
    """All pairs; those that run at once hold every family and every method."""
    for i, family in enumerate(FAMILIES):
        for j, name in enumerate(METHODS):
            fast = (i + 4 * j) % 15 == 0 or (family, name) == ("gptj", "direct_finetune")
            yield pytest.param(family, name, marks=() if fast else pytest.mark.slow, id=f"{family}-{name}")


@cache
def checkpoint(family: str, root: Path) -> Path:
    """A tiny checkpoint with random weights and a tokenizer, as transformers saves it."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    kind = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    special = {"vocab_size": len(tokenizer()), "pad_token_id": PAD, "eos_token_id": END, "bos_token_id": PAD}
    torch.manual_seed(0)
    model = kind.from_config(AutoConfig.for_model(family, **special, **FAMILIES[family])).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1 and "embed" not in name:
                parameter *= 3
    folder = root / family
    model.save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    publish()
    return tmp_path_factory.mktemp("families")


def tokens(length: int) -> list[int]:
    return torch.randint(0, 256, (length,), generator=torch.Generator().manual_seed(0)).tolist()  # type: ignore[no-any-return]


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> Any:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


@pytest.mark.parametrize(("family", "name"), list(pairs()))
def test_a_pair_runs_or_is_refused_by_the_plan(family: str, name: str, root: Path, tmp_path: Path) -> None:
    folder = checkpoint(family, root)
    asked = ["model=pretrained", f"model.path={folder}", "stages=[corpus,tokens,extend,evaluate]"]
    cell = compose([*asked, f"context={name}", *NARROW.get(name, [])])
    if refused := [str(problem) for problem in problems(cell)]:
        ways = ("use ", "keep to it", "add max_position", "cannot be read as a causal model")
        assert all(any(way in reason for way in ways) for reason in refused), refused
        return
    choice = cell.choice("context", stage="extend")
    assert choice is not None
    loaded = load_pretrained(str(folder))
    model: Any = choice.build().apply(loaded.model)
    ids = tokens(LONG)
    wanted = logits(model, ids)
    assert wanted.isfinite().all()
    trained_a_step(model, ids)
    model.save_pretrained(tmp_path / "saved")
    again = choice.build().apply(type(model).from_pretrained(tmp_path / "saved").eval())
    torch.testing.assert_close(logits(again, ids), wanted, rtol=1e-4, atol=1e-4)
    scored(model, ids)
    decoded(model, ids, follows=name in FOLLOWING)
    loaded.model, loaded.applied = model, [describe(choice)]
    exported(loaded, tmp_path / "out", ids)


def trained_a_step(model: Any, ids: list[int]) -> None:
    """A backward pass beyond the trained length."""
    batch = torch.tensor([ids])
    model.train().requires_grad_(True)
    model(input_ids=batch, labels=batch).loss.backward()
    model.eval().zero_grad()


def scored(model: Any, ids: list[int]) -> None:
    """Scores in batches and behind shared contexts are those of whole rows."""
    parts = ((3, 2), (3, 1), (60, 5), (90, 4), (90, 8), (20, 3))
    requests = [ScoreRequest(ids[:start], ids[start : start + size]) for start, size in parts]
    requests.append(ScoreRequest(ids[:60], ids[1:4]))
    found = LikelihoodScorer(model=model, max_length=2 * TRAINED, pad_id=PAD).score(requests)
    for request, score in zip(requests, found, strict=True):
        read = logits(model, [*request.context, *request.continuation[:-1]]).log_softmax(-1)
        rows = read[len(request.context) - 1 :]
        wanted = sum(float(row[token]) for row, token in zip(rows, request.continuation, strict=True))
        assert score.total == pytest.approx(wanted, rel=1e-3, abs=1e-3)


def decoded(model: Any, ids: list[int], *, follows: bool) -> None:
    """Rows of mixed lengths in a batch say what each says alone, without a cache where that is the same."""
    jobs = [Job(ids=ids[:length], max_new_tokens=5) for length in (5, 40, 80, 3)]
    together = decode(model, jobs, Rule(), ends=(), pad=PAD)
    for job, found in zip(jobs, together, strict=True):
        said = list(job.ids)
        if follows:
            (alone,) = decode(model, [job], Rule(), ends=(), pad=PAD)
            said += alone
        while len(said) < len(job.ids) + 5:
            said.append(int(logits(model, said)[-1].argmax()))
        assert found == said[len(job.ids) :]


def exported(loaded: Any, target: Path, ids: list[int]) -> None:
    """What transformers reads again computes the same, or nothing is written."""
    from transformers import AutoModelForCausalLM

    try:
        _write_model(loaded, target)
    except IncompatibleError:
        assert not target.exists()
        return
    again = AutoModelForCausalLM.from_pretrained(target).eval()
    for length in (20, LONG):
        found, wanted = logits(again, ids[:length]), logits(loaded.model, ids[:length])
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


def test_every_family_and_every_method_is_tried_at_once() -> None:
    fast = [pair.values for pair in pairs() if not pair.marks]
    assert {family for family, _ in fast} == set(FAMILIES)
    assert {name for _, name in fast} == set(METHODS)
