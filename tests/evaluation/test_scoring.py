"""The scoring engine: every way of reading gives what a row read alone gives, in bounded memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from composed import tiny
from decoding_models import tiny_llama

import harness.evaluation.reading as reading
from harness.conformance.test_context import LENGTH, model_of
from harness.evaluation.requests import ScoreRequest
from harness.evaluation.scoring import LikelihoodScorer
from harness.registry.known import registry


def tokens(count: int, seed: int, *, vocab: int = 47) -> list[int]:
    return torch.randint(2, vocab, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


def choices(lengths: list[int], *, sizes: tuple[int, ...] = (3, 1, 6, 2)) -> list[ScoreRequest]:
    return [
        ScoreRequest(tokens(length, length), tokens(size, 100 * length + size))
        for length in lengths
        for size in sizes
    ]


@torch.no_grad()
def alone(model: Any, request: ScoreRequest) -> float:
    """The sum of log-probabilities of one full pass, by hand."""
    ids = torch.tensor([[*request.context, *request.continuation]])
    log_probs = model(input_ids=ids[:, :-1], use_cache=False).logits[0].double().log_softmax(-1)
    first = len(request.context) - 1
    return sum(float(log_probs[first + i, token]) for i, token in enumerate(request.continuation))


def check(model: Any, requests: list[ScoreRequest], **options: Any) -> LikelihoodScorer:
    scorer = LikelihoodScorer(model=model, max_length=1024, **options)
    found = [score.total for score in scorer.score(requests)]
    assert found == pytest.approx([alone(model, request) for request in requests], abs=2e-3)
    return scorer


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_continuations_behind_one_context_see_it_and_themselves_alone(attention: str) -> None:
    model = tiny_llama(seed=1)
    model.set_attn_implementation(attention)
    scorer = check(model, choices([5, 30, 31, 60, 64, 90]), batch_tokens=400)
    assert scorer.facts["shared_prefix"] is True
    assert "tree" not in scorer._refused
    assert scorer.facts["saved_tokens"] == sum(length - 1 for length in (5, 30, 31, 60, 64, 90)) * 3


def families() -> dict[str, Any]:
    from transformers import (
        BloomConfig,
        BloomForCausalLM,
        GPT2Config,
        GPT2LMHeadModel,
        MistralConfig,
        MistralForCausalLM,
        OPTConfig,
        OPTForCausalLM,
    )

    torch.manual_seed(0)
    shape = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    heads = {"intermediate_size": 64, "num_key_value_heads": 2, "pad_token_id": 0}
    return {
        "gpt2": GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=32, n_layer=2, n_head=2, n_positions=128)),
        "opt": OPTForCausalLM(OPTConfig(ffn_dim=64, word_embed_proj_dim=32, **shape)),
        "bloom": BloomForCausalLM(BloomConfig(vocab_size=64, hidden_size=32, n_layer=2, n_head=2)),
        "mistral": MistralForCausalLM(MistralConfig(sliding_window=16, **heads, **shape)),
        "ours": tiny(),
        "paged": tiny(attention="paged"),
        "window": tiny(attention=("sliding_window", {"window": 8})),
        "alibi": tiny(position="alibi"),
        "linear": tiny(attention="linear"),
        "prefix": tiny(architecture="prefix_decoder"),
        "switch": tiny(feed_forward="moe_switch"),
    }


@pytest.mark.parametrize(
    "name",
    ["gpt2", "opt", "bloom", "mistral", "ours", "paged", "window", "alibi", "linear", "switch"],
)
def test_whatever_a_model_takes_its_scores_are_those_of_rows_alone(name: str) -> None:
    check(families()[name].eval(), choices([6, 20, 21, 40, 50]))


CONTEXTS = [name for name in registry().methods("context") if name != "none"]


@pytest.mark.parametrize("kind", ["ours", "theirs"])
@pytest.mark.parametrize("name", CONTEXTS)
def test_an_extended_model_scores_every_row_by_its_own_length(name: str, kind: str) -> None:
    method = registry().get("context", name)
    model = method(method.Config(factor=4.0)).apply(model_of(kind))  # type: ignore[attr-defined]
    requests = choices([10, LENGTH - 2, LENGTH + 20, 3 * LENGTH, 3 * LENGTH - 7])
    requests += [ScoreRequest([1], tokens(length, length)) for length in (8, LENGTH + 3, 2 * LENGTH)]
    check(model, requests)


def test_rows_that_their_neighbours_change_are_read_one_by_one() -> None:
    class Crowded(torch.nn.Module):
        """Its logits depend on the other rows of the batch."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = tiny_llama(seed=1)

        def forward(self, input_ids: Any, **options: Any) -> Any:
            out = self.inner(input_ids=input_ids, **options)
            out.logits = out.logits * (1 + 0.1 * len(input_ids))
            return out

    requests = [ScoreRequest(tokens(length, length), tokens(3, length)) for length in (20, 21, 22)]
    scorer = check(Crowded(), requests)
    assert "differ" in scorer.facts["read_one_by_one"]


@pytest.mark.parametrize("name", [None, "streaming"])
def test_long_rows_are_read_in_parts(name: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LOGITS", 48 * 64)
    monkeypatch.setattr(reading, "SLICE", 64)
    model = model_of("theirs")
    if name is not None:
        method = registry().get("context", name)
        model = method(method.Config(factor=16.0, window=20)).apply(model)  # type: ignore[attr-defined]
    requests = [ScoreRequest([1], tokens(length, length)) for length in (500, 430, 20)]
    requests += choices([300], sizes=(200,))
    scorer = check(model, requests)
    assert scorer.facts["read_in_parts"] is True


def mistral() -> Any:
    """Its window is narrower than a part, and a part narrower than its rows."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    shape = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"intermediate_size": 48, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    return MistralForCausalLM(MistralConfig(**shape, sliding_window=20, initializer_range=0.3)).eval()


FORGETTING = {
    "mistral": mistral,
    "window": lambda: tiny(attention=("sliding_window", {"window": 20}), shape={"max_length": 1024}),
    "hybrid": lambda: tiny(
        shape={
            "max_length": 1024,
            "layer_pattern": [{"attention": {"method": "sliding_window", "window": 20}}, {}],
        }
    ),
    "linear": lambda: tiny(attention="linear", shape={"max_length": 1024}),
    "mamba2": lambda: tiny(attention="mamba2", shape={"max_length": 1024}),
}


@pytest.mark.parametrize("name", FORGETTING)
def test_a_model_that_forgets_is_read_in_parts_whatever_its_vocabulary(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "PART", 64)
    widest = 0
    model = FORGETTING[name]()
    plain = model.forward

    def forward(input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal widest
        widest = max(widest, input_ids.shape[1])
        return plain(input_ids, *args, **kwargs)

    requests = [ScoreRequest([1], tokens(length, length)) for length in (300, 230, 20)]
    requests += choices([200], sizes=(9, 3))
    expected = [alone(model, request) for request in requests]
    monkeypatch.setattr(model, "forward", forward)
    scorer = LikelihoodScorer(model=model, max_length=1024)
    assert [score.total for score in scorer.score(requests)] == pytest.approx(expected, abs=2e-3)
    assert scorer.facts["read_in_parts"] is True
    assert widest == 64


def streaming() -> Any:
    """A model of transformers that reads four sinks and a window."""
    method = registry().get("context", "streaming")
    return method(method.Config(factor=512.0, window=20)).apply(model_of("theirs"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["mistral", "window", "linear", "streaming"])
def test_memory_of_a_model_that_forgets_does_not_grow_with_the_text(name: str) -> None:
    from harness import PeakTracker

    make = {**FORGETTING, "streaming": streaming}[name]
    peaks = []
    for length in (2048, 8192):
        scorer = LikelihoodScorer(model=make(), max_length=length, batch_tokens=length)
        with PeakTracker([]) as tracker:
            scorer.score([ScoreRequest([1], tokens(length, 0))])
        peaks.append(tracker.peak)
    # Ids, positions and log-probabilities of three times as many tokens, a few numbers each.
    assert peaks[1] < peaks[0] + 6144 * 64


def test_groups_with_many_choices_are_cut() -> None:
    model = tiny_llama(seed=1)
    requests = [ScoreRequest(tokens(40, 1), tokens(4, seed)) for seed in range(300)]
    scorer = LikelihoodScorer(model=model, max_length=128, batch_tokens=256)
    widths = []
    plain = scorer._reader._forward

    def noted(sequences: Any, **options: Any) -> Any:
        widths.append(len(sequences) * max(map(len, sequences)))
        return plain(sequences, **options)

    scorer._reader._forward = noted  # type: ignore[method-assign]
    scorer.score(requests)
    assert max(widths) <= 2 * 256
    scorer._refused["tree"] = "tried"
    widths.clear()
    scorer.score(requests)
    assert max(widths) <= 2 * 256
