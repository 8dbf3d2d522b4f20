"""Continuous batching: rows join and leave a batch, and each says what it says alone."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from composed import tiny
from decoding_models import END, PAD, tiny_llama
from torch.overrides import TorchFunctionMode

from harness.conformance._language import subject
from harness.errors import IncompatibleError
from harness.evaluation.answers import answer
from harness.ops import decode as decode_ops
from harness.ops.decode import Job, decode, forgets, new_cache
from harness.ops.drawing import quantile, rule_of, uniforms
from harness.registry.known import registry
from harness.rng import draw_seed

GREEDY = {"do_sample": False}
SAMPLED = {"do_sample": True, "temperature": 2.0, "top_p": 0.95}


def jobs(count: int, *, new_tokens: int = 9) -> list[Job]:
    """Prompts of many lengths, which end at different times."""
    generator = torch.Generator().manual_seed(0)
    lengths = [1 + (7 * index) % 40 for index in range(count)]
    return [
        Job(
            ids=torch.randint(2, 64, (length,), generator=generator).tolist(),
            max_new_tokens=1 + (3 * index) % new_tokens,
            seed=draw_seed(seed=0, prompt=index),
        )
        for index, length in enumerate(lengths)
    ]


def model_of(kind: str) -> Any:
    return tiny_llama(seed=1) if kind == "theirs" else tiny(attention=kind)


@pytest.mark.parametrize("options", [GREEDY, SAMPLED, {**GREEDY, "repetition_penalty": 1.7}])
@pytest.mark.parametrize("kind", ["theirs", "full", "paged", "sliding_window", "linear"])
def test_rows_that_share_a_batch_say_what_they_say_alone(kind: str, options: dict[str, Any]) -> None:
    model, rule, asked = model_of(kind), rule_of(options), jobs(11)
    assert rule is not None
    settings: dict[str, Any] = {"ends": (END,), "pad": PAD}
    alone = [decode(model, [job], rule, **settings)[0] for job in asked]
    for batch_size in (3, 11):
        assert decode(model, asked, rule, batch_size=batch_size, **settings) == alone
    assert decode(model, asked, rule, batch_tokens=60, **settings) == alone


class Calls(TorchFunctionMode):
    """Notes the columns of the keys in every call of torch's attention, those of prompts apart."""

    def __init__(self) -> None:
        super().__init__()
        self.columns: list[int] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention and args[0].shape[2] < 5:
            self.columns.append(len(args[1]) * args[1].shape[2])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", ["theirs", "full", "grouped_query"])
def test_a_step_reads_no_column_that_pads_rows_of_another_length(kind: str) -> None:
    model, rule = model_of(kind), rule_of(GREEDY)
    assert rule is not None
    lengths = (5, 6, 80, 20, 21, 81)  # three pairs of similar lengths
    asked = [Job(ids=[3 + n % 50] * n, max_new_tokens=3) for n in lengths]
    with Calls() as calls:
        found = decode(model, asked, rule, ends=(), pad=PAD)
    assert found == [decode(model, [job], rule, ends=(), pad=PAD)[0] for job in asked]
    layers = len(model.model.layers)
    # The first of two steps: pairs are as wide as the longer of the two, one token more each.
    assert sum(calls.columns[: 3 * layers]) == layers * 2 * (82 + 22 + 7)


def test_tokens_equal_those_of_transformers_generate_on_every_prompt_alone() -> None:
    model = tiny_llama(seed=0)
    rule = rule_of(GREEDY)
    assert rule is not None
    found = decode(model, jobs(9), rule, ends=(END,), pad=PAD, batch_size=4)
    for job, tokens in zip(jobs(9), found, strict=True):
        ids = torch.tensor([job.ids])
        out = model.generate(ids, max_new_tokens=job.max_new_tokens, do_sample=False)
        assert tokens == out[0, len(job.ids) :].tolist()


def test_a_hundred_answers_to_one_prompt_are_drawn_apart_whatever_the_batch() -> None:
    sampling = registry().get("decoding", "sampling")()
    given = subject(decoding=sampling)
    answers = {}
    for batch_size in (16, 64, 128):
        found = answer(given, ["Say: value"] * 128, max_new_tokens=8, batch_size=batch_size)
        answers[batch_size] = [tuple(tokens) for tokens in found.tokens]
    assert answers[16] == answers[64] == answers[128]
    assert len(set(answers[64])) > 120


def test_streams_are_uniform_and_apart() -> None:
    from scipy.stats import kstest

    seeds = [draw_seed(seed=0, prompt=index) for index in range(400)]
    first = uniforms(seeds, [0] * 400)
    assert kstest(first.numpy(), "uniform").pvalue > 1e-3
    one_stream = uniforms([seeds[0]] * 400, range(400))
    assert kstest(one_stream.numpy(), "uniform").pvalue > 1e-3
    again = uniforms(seeds[5:6], [3])
    assert torch.equal(again, uniforms(seeds, [3] * 400)[5:6])
    assert abs(float(torch.corrcoef(torch.stack((first, uniforms(seeds, [1] * 400))))[0, 1])) < 0.2


def test_a_quantile_never_picks_what_has_no_weight() -> None:
    weights = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]], dtype=torch.float64)
    for uniform, token in ((0.0, 1), (0.4999, 1), (0.5, 3), (1 - 2**-53, 3)):
        assert quantile(weights, torch.tensor([uniform], dtype=torch.float64)).item() == token


def test_samplers_draw_in_the_shares_of_their_distribution() -> None:
    from scipy.stats import chisquare

    model = tiny_llama(layers=1, seed=0)
    rule = rule_of(SAMPLED)
    assert rule is not None
    draws = 800
    asked = [Job(ids=[5, 9, 2], max_new_tokens=1, seed=draw_seed(seed=1, prompt=i)) for i in range(draws)]
    found = torch.bincount(torch.tensor(decode(model, asked, rule, ends=(), pad=PAD)).flatten(), minlength=64)
    with torch.no_grad():
        probs = (model(torch.tensor([[5, 9, 2]])).logits[0, -1].double() / 2).softmax(-1)
    order = probs.argsort(descending=True)
    kept = order[: int((probs[order].cumsum(0) < 0.95).sum()) + 1]
    assert set(found.nonzero().flatten().tolist()) <= set(kept.tolist())
    expected = probs[kept] / probs[kept].sum() * draws
    assert float(expected.min()) >= 5
    assert chisquare(found[kept].double(), expected).pvalue > 1e-3


@pytest.mark.parametrize("family", ["Mamba", "Rwkv"])
def test_a_model_that_would_ignore_its_cache_is_refused(family: str) -> None:
    import transformers

    config = getattr(transformers, f"{family}Config")(
        vocab_size=64, hidden_size=32, num_hidden_layers=2, context_length=64
    )
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    assert not forgets(model), "it is scored at once, as it was"
    with pytest.raises(IncompatibleError, match=f"{family}ForCausalLM takes no past_key_values"):
        new_cache(model)


def test_what_a_forward_takes_is_asked_once_a_class(monkeypatch):
    model, asked = tiny(), []
    whole = inspect.signature
    monkeypatch.setattr(inspect, "signature", lambda given: asked.append(given) or whole(given))
    decode_ops._named.cache_clear()
    for _ in range(3):
        assert decode_ops.last_logits(model) == {"logits_to_keep": 1}
    assert asked == [type(model).forward]
    model.forward = lambda input_ids: None
    assert decode_ops.last_logits(model) == {}
