"""What every decoding method must do."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from torch import Tensor

from harness.axes.decoding import Decoding
from harness.conformance._language import END, PAD, model

AXIS = "decoding"
NEW = 6
PROMPTS = ([72, 101, 108], [10, 20, 30, 40, 50, 60], [65, 66])


def made(method: type[Decoding]) -> Decoding:
    """An instance whose model references lead to a smaller model."""
    decoding = method()
    options = dataclasses.fields(decoding.config)
    decoding.models = {
        option.name: model(seed=7, layers=1) for option in options if option.metadata.get("model_ref")
    }
    return decoding


def batch(prompts: Any = PROMPTS) -> tuple[Tensor, Tensor]:
    """Prompts of several lengths, padded on the left."""
    width = max(map(len, prompts))
    ids_BT = torch.full((len(prompts), width), PAD)
    mask_BT = torch.zeros_like(ids_BT)
    for row, prompt in enumerate(prompts):
        ids_BT[row, width - len(prompt) :] = torch.tensor(prompt)
        mask_BT[row, width - len(prompt) :] = 1
    return ids_BT, mask_BT


def draw(method: type[Decoding], *, seed: int = 0, prompts: Any = PROMPTS, language: Any = None) -> Tensor:
    """New tokens of the tiny model."""
    ids_BT, mask_BT = batch(prompts)
    return made(method).generate(language or model(), ids_BT, mask_BT, max_new_tokens=NEW, seed=seed)


def test_only_new_tokens_come_back(method: type[Decoding]) -> None:
    new_BS = draw(method)
    assert new_BS.shape[0] == len(PROMPTS), "one row a prompt"
    assert 1 <= new_BS.shape[1] <= NEW, f"at most max_new_tokens={NEW} tokens, without the prompt"
    assert int(new_BS.min()) >= 0
    assert int(new_BS.max()) < model().config.vocab_size


def test_one_seed_draws_the_same_tokens_again(method: type[Decoding]) -> None:
    first = draw(method, seed=3)
    torch.rand(5)
    assert torch.equal(first, draw(method, seed=3)), "tokens depend on `seed` alone"


def test_the_global_random_state_is_left_as_it_was(method: type[Decoding]) -> None:
    before = torch.get_rng_state()
    draw(method)
    assert torch.equal(before, torch.get_rng_state())


def test_the_model_is_left_as_it_was(method: type[Decoding]) -> None:
    language = model()
    before = {name: value.clone() for name, value in language.state_dict().items()}
    draw(method, language=language)
    assert all(torch.equal(value, before[name]) for name, value in language.state_dict().items())
    assert not language.training


def test_padding_on_the_left_changes_nothing(method: type[Decoding]) -> None:
    if not torch.equal(draw(method, seed=0), draw(method, seed=1)):
        return  # it samples: a batch shares one random stream
    together = draw(method).tolist()
    for row, prompt in zip(together, PROMPTS, strict=True):
        alone = draw(method, prompts=[prompt])[0].tolist()
        length = min(len(alone), len(row))
        assert row[:length] == alone[:length], "mask out padding and count positions without it"


def test_nothing_but_padding_follows_the_end(method: type[Decoding]) -> None:
    language = model()
    with torch.no_grad():  # the end is by far the likeliest token after a few others
        language.lm_head.weight[END] = language.lm_head.weight.abs().sum(0) * 0.02
    rows = [row for seed in range(2) for row in draw(method, seed=seed, language=language).tolist()]
    for row in rows:
        if END in row:
            assert set(row[row.index(END) + 1 :]) <= {PAD}, "a sequence stops at its end token"
