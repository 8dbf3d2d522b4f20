"""The evaluation engine scores and generates through a paged cache where the model keeps one."""

import pytest
import torch
from composed import tiny

import harness.model.hf as hf
from harness.evaluation.generation import in_batches
from harness.evaluation.requests import ScoreRequest
from harness.evaluation.scoring import LikelihoodScorer
from harness.registry.known import registry


@pytest.fixture
def tables(monkeypatch):
    """The block tables made during a test."""
    made, plain = [], hf.paged_layers

    def kept(count):
        layers = plain(count)
        made.append(layers[0].table)
        return layers

    monkeypatch.setattr(hf, "paged_layers", kept)
    return made


def _tokens(count, seed):
    return torch.randint(1, 64, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


@torch.no_grad()
def test_choices_of_one_context_share_its_blocks(tables):
    requests = [
        ScoreRequest(_tokens(33, context), _tokens(5, 10 * context + choice))
        for context in (1, 2)
        for choice in range(4)
    ]
    totals = {}
    for name in ("full", "paged"):
        scorer = LikelihoodScorer(model=tiny(attention=name), max_length=64)
        totals[name] = [score.total for score in scorer.score(requests)]
        assert scorer.facts["shared_prefix"] is True
    assert totals["paged"] == pytest.approx(totals["full"], abs=1e-4)
    # Each context fills two blocks of 16 tokens, held once; each of its four choices has one of its own.
    assert tables[-1].num_blocks() == 2 * (2 + 4)


@torch.no_grad()
def test_generation_over_mixed_lengths_stores_no_padding(tables):
    prompts = [_tokens(count, count) for count in (3, 17, 30, 41)]
    answers = {}
    for name in ("full", "paged"):
        model = tiny(attention=name)

        def draw(ids_BT, mask_BT, which, model=model):
            options = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
            return model.generate(ids_BT, attention_mask=mask_BT, **options)[:, ids_BT.shape[1] :]

        answers[name] = in_batches(prompts, draw, pad_id=0, device="cpu", batch_size=4, new_tokens=8)
    assert answers["paged"] == answers["full"]
    # The last token drawn is never read, so 7 of 8 are stored.
    assert sorted(tables[-1].lengths) == [len(prompt) + 7 for prompt in prompts]
    assert tables[-1].waste() < 16 * len(prompts)


@torch.no_grad()
def test_drafts_that_are_refused_are_cropped_from_the_blocks(tables):
    shape = {"max_length": 96}
    ids = torch.tensor([_tokens(12, 0)])
    options = {"max_new_tokens": 20, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    greedy = tiny(shape=shape).generate(ids, **options)
    draft = tiny(attention="paged", seed=1, shape={**shape, "num_layers": 1})
    found = tiny(attention="paged", shape=shape).generate(ids, assistant_model=draft, **options)
    assert torch.equal(found, greedy)
    assert max(map(len, (table.owners for table in tables))) <= 3, "refused tokens give their blocks back"


@pytest.mark.parametrize("name", ["beam", "contrastive_search", "diverse_beam", "dola", "sampling"])
def test_decodings_answer_alike_from_both_caches(name):
    method = registry().get("decoding", name)
    ids = torch.tensor([_tokens(12, seed) for seed in (1, 2)])
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    found = []
    for attention in ("full", "paged"):
        model = tiny(attention=attention)
        model.generation_config.pad_token_id, model.generation_config.eos_token_id = 0, 1
        decoding = method(method.Config())
        found.append(decoding.generate(model, ids, mask, max_new_tokens=8, seeds=[0, 1]))
    assert torch.equal(*found)
