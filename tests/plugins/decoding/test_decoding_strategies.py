"""Decoding strategies against transformers' generate, against tokens of 4.49, and against formulas."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from decoding_models import END, NEW_TOKENS, PAD, PROMPTS, tiny_llama
from harness_plugins.decoding.beam import Beam
from harness_plugins.decoding.contrastive_decoding import ContrastiveDecoding
from harness_plugins.decoding.contrastive_search import ContrastiveSearch
from harness_plugins.decoding.diverse_beam import DiverseBeam
from harness_plugins.decoding.dola import DoLa
from harness_plugins.decoding.epsilon import Epsilon
from harness_plugins.decoding.eta import Eta
from harness_plugins.decoding.greedy import Greedy
from harness_plugins.decoding.min_p import MinP
from harness_plugins.decoding.repetition_penalty import RepetitionPenalty
from harness_plugins.decoding.sampling import Sampling
from harness_plugins.decoding.speculative import Speculative
from harness_plugins.decoding.top_h import TopH
from harness_plugins.decoding.top_k import TopK
from harness_plugins.decoding.top_p import TopP
from harness_plugins.decoding.typical import Typical

from harness.errors import ConfigError
from harness.rng import draw_seed

RECORDED = json.loads(Path(__file__).with_name("tokens_4_49.json").read_text())

STRATEGIES: dict[str, Any] = {
    "greedy": Greedy(),
    "beam": Beam(),
    "beam_long": Beam(Beam.Config(num_beams=3, length_penalty=2.0, early_stopping=True)),
    "beam_short": Beam(Beam.Config(num_beams=5, length_penalty=-1.0)),
    "contrastive_search": ContrastiveSearch(),
    "contrastive_search_weak": ContrastiveSearch(ContrastiveSearch.Config(alpha=0.2, top_k=6)),
    "diverse_beam": DiverseBeam(),
    "diverse_beam_short": DiverseBeam(
        DiverseBeam.Config(num_beams=6, num_groups=3, diversity=1.0, length_penalty=0.0)
    ),
    "diverse_beam_long": DiverseBeam(
        DiverseBeam.Config(num_beams=6, diversity=0.3, length_penalty=2.0, early_stopping=True)
    ),
    "diverse_beam_alone": DiverseBeam(
        DiverseBeam.Config(num_beams=3, num_groups=3, diversity=2.0, length_penalty=-1.0)
    ),
    "dola_high": DoLa(DoLa.Config(divergence="authors_code")),
    "dola_low": DoLa(DoLa.Config(layers="low", divergence="authors_code")),
}


def run(decoding: Any, model: Any, prompts: Any, *, new_tokens: int = NEW_TOKENS, seed: int = 0) -> Any:
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    seeds = [draw_seed(seed=seed, prompt=row) for row in range(len(prompts))]
    return decoding.generate(model, ids, mask, max_new_tokens=new_tokens, seeds=seeds)


@pytest.mark.parametrize(
    ("tie", "seed"),
    [
        (False, 0),
        (True, 1),
        pytest.param(False, 1, marks=pytest.mark.slow),
        pytest.param(True, 0, marks=pytest.mark.slow),
    ],
)
def test_tokens_equal_those_of_transformers_4_49(tie: bool, seed: int) -> None:
    model = tiny_llama(layers=6, seed=seed, tie=tie)
    different = []
    for name, decoding in STRATEGIES.items():
        for index, prompt in enumerate(PROMPTS):
            key = f"{name}/tie={tie}/seed={seed}/prompt={index}"
            if run(decoding, model, [prompt])[0].tolist() != RECORDED[key]:
                different.append(key)
    assert not different


def test_a_left_padded_batch_yields_what_its_rows_yield_alone() -> None:
    model = tiny_llama(layers=6, seed=1)
    for decoding in (ContrastiveSearch(), DiverseBeam(), DoLa()):
        together = run(decoding, model, PROMPTS)
        for row, prompt in zip(together.tolist(), PROMPTS, strict=True):
            alone = run(decoding, model, [prompt])[0].tolist()
            assert row[: len(alone)] == alone, decoding.name
            assert set(row[len(alone) :]) <= {PAD}


def processed(decoding: Any, logits_BV: torch.Tensor) -> torch.Tensor:
    """Log-probabilities that a sampler draws from, as transformers processes them."""
    model = tiny_llama(layers=1)
    config = model.generation_config
    options = dict(decoding.options())
    config.update(**options)
    processors = model._get_logits_processor(
        generation_config=config,
        input_ids_seq_length=1,
        encoder_input_ids=torch.zeros(1, 1, dtype=torch.long),
        prefix_allowed_tokens_fn=None,
        logits_processor=[],
        device="cpu",
        model_kwargs={},
    )
    return processors(torch.tensor([[2]]), logits_BV.clone()).softmax(-1)


def cut(kept: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    probs = torch.where(kept, probs, 0.0)
    return probs / probs.sum()


def test_samplers_cut_what_their_formula_cuts() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 64, dtype=torch.float64) * 2
    p = logits.softmax(-1)[0]
    order = p.argsort(descending=True)
    below = torch.zeros_like(p)
    below[order] = p[order].cumsum(0) - p[order]
    entropy = -(p * p.log()).sum()
    surprise = (-p.log() - entropy).abs()
    by_surprise = surprise.argsort()
    before = torch.zeros_like(p)
    before[by_surprise] = p[by_surprise].cumsum(0) - p[by_surprise]
    carried = torch.zeros_like(p)
    carried[order] = (-p * p.log())[order].cumsum(0)
    epsilon = 0.02
    expected = {
        Sampling(): p,
        Sampling(Sampling.Config(temperature=0.5)): (logits / 0.5).softmax(-1)[0],
        TopK(TopK.Config(top_k=5)): cut(p >= p[order[4]], p),
        TopH(TopH.Config(top_h=0.5)): cut(carried <= 0.5 * entropy, p),
        TopH(TopH.Config(top_h=1e-3)): cut(p == p.max(), p),
        TopP(TopP.Config(top_p=0.8)): cut(below < 0.8, p),
        MinP(MinP.Config(min_p=0.2)): cut(p >= 0.2 * p.max(), p),
        Typical(Typical.Config(mass=0.6)): cut(before < 0.6, p),
        Epsilon(Epsilon.Config(epsilon=epsilon)): cut(p >= epsilon, p),
        Epsilon(Epsilon.Config(epsilon=0.99)): cut(p == p.max(), p),
        Eta(Eta.Config(epsilon=epsilon)): cut(p >= min(epsilon, epsilon**0.5 * float((-entropy).exp())), p),
    }
    for decoding, probs in expected.items():
        torch.testing.assert_close(
            processed(decoding, logits)[0], probs, msg=lambda m, d=decoding: f"{d.name}: {m}"
        )


def test_a_threshold_that_no_token_can_reach_is_refused() -> None:
    for method in (Epsilon, Eta):
        for epsilon in (0.0, 1.0):
            with pytest.raises(ConfigError, match=rf"epsilon={epsilon} must be above 0 and below 1"):
                method.Config(epsilon=epsilon)


def test_repetition_penalty_lowers_seen_tokens() -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0, -3.0]], dtype=torch.float64)
    from transformers import RepetitionPenaltyLogitsProcessor

    options = RepetitionPenalty(RepetitionPenalty.Config(penalty=2.0)).options()
    processor = RepetitionPenaltyLogitsProcessor(options["repetition_penalty"])
    found = processor(torch.tensor([[2, 3]]), logits.clone())
    assert found.tolist() == [[0.5, -1.0, 1.0, -6.0]]
    model = tiny_llama(seed=1)
    plain = run(Greedy(), model, PROMPTS)
    punished = run(RepetitionPenalty(RepetitionPenalty.Config(penalty=10.0)), model, PROMPTS)
    assert len(set(punished[0].tolist())) > len(set(plain[0].tolist()))


def test_contrastive_decoding_scores_equal_the_formula_and_equal_models_tie() -> None:
    torch.manual_seed(0)
    decoding = ContrastiveDecoding(ContrastiveDecoding.Config(alpha=0.3, temperature=0.7))
    expert, amateur = torch.randn(2, 16, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)
    p, q = expert.softmax(-1), (amateur / 0.7).softmax(-1)
    found = decoding.scores(expert, amateur)
    for b in range(2):
        for v in range(16):
            plausible = p[b, v] >= 0.3 * p[b].max()
            expected = float((p[b, v] / q[b, v]).log()) if plausible else -torch.inf
            assert float(found[b, v]) == pytest.approx(expected, rel=1e-9)
    model = tiny_llama(seed=0)
    greedy_like = ContrastiveDecoding(ContrastiveDecoding.Config(alpha=1.0))
    greedy_like.models = {"amateur": tiny_llama(layers=1, seed=3)}
    assert run(greedy_like, model, PROMPTS).tolist() == run(Greedy(), model, PROMPTS).tolist()


def test_contrastive_search_without_penalty_is_greedy() -> None:
    model = tiny_llama(seed=0)
    weightless = ContrastiveSearch(ContrastiveSearch.Config(alpha=0.0))
    assert run(weightless, model, PROMPTS).tolist() == run(Greedy(), model, PROMPTS).tolist()


def test_speculative_at_temperature_zero_is_greedy() -> None:
    model = tiny_llama(seed=0)
    decoding = Speculative(Speculative.Config(temperature=0.0))
    decoding.models = {"draft": tiny_llama(layers=1, seed=5)}
    assert run(decoding, model, PROMPTS).tolist() == run(Greedy(), model, PROMPTS).tolist()


def test_speculative_samples_from_the_models_own_distribution() -> None:
    from scipy.stats import chisquare

    model, draft = tiny_llama(layers=1, seed=0), tiny_llama(layers=1, seed=5)
    decoding = Speculative(Speculative.Config(num_draft_tokens=2, temperature=3.0))
    decoding.models = {"draft": draft}
    prompt, draws = PROMPTS[0], 600
    found = torch.zeros(64, 64)
    for row in run(decoding, model, [prompt] * draws, new_tokens=2, seed=1).tolist():
        found[row[0], row[1]] += 1
    with torch.no_grad():
        first = (model(torch.tensor([prompt])).logits[0, -1] / 3).softmax(-1)
        longer = torch.tensor([[*prompt, token] for token in range(64)])
        second = (model(longer).logits[:, -1] / 3).softmax(-1)
    second[END] = torch.nn.functional.one_hot(torch.tensor(PAD), 64)  # nothing follows the end
    for counts, probs in ((found.sum(1), first), (found.sum(0), first @ second)):
        common = probs * draws >= 5
        observed, expected = counts[common].double(), probs[common].double() * draws
        rest = draws - expected.sum()
        if rest >= 5:
            observed = torch.cat([observed, (draws - observed.sum())[None]])
            expected = torch.cat([expected, rest[None]])
        assert chisquare(observed, expected * observed.sum() / expected.sum()).pvalue > 1e-3
