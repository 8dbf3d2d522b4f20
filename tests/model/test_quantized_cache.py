"""A key/value cache in few bits: what it keeps, what it costs in memory and quality, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import Tensor

from harness import ConfigError
from harness.compose import compose
from harness.ops.decode import new_cache
from harness.ops.quantized_cache import GROUP, QuantizedCache


def states(tokens: int, *, seed: int = 0, dim: int = 64) -> tuple[Tensor, Tensor]:
    """Keys with channels of very different size, as trained models have, and values."""
    generator = torch.Generator().manual_seed(seed)
    keys = torch.randn(2, 3, tokens, dim, generator=generator) * torch.logspace(-1, 1, dim)
    return keys, torch.randn(2, 3, tokens, dim, generator=generator)


def filled(bits: int, tokens: int = 256) -> tuple[QuantizedCache, Tensor, Tensor]:
    """A cache after one long pass, and what a pass of one more token then reads."""
    cache = QuantizedCache(bits=bits)
    cache.update(*states(tokens))
    keys, values = cache.update(*states(1, seed=1))
    return cache, keys, values


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_number_is_within_half_a_step_of_its_group(bits: int) -> None:
    _, keys, values = filled(bits)
    exact_keys, exact_values = states(256)
    for found, exact, group in (
        (keys[..., :GROUP, :], exact_keys[..., :GROUP, :], -2),
        (values[..., :GROUP, :GROUP], exact_values[..., :GROUP, :GROUP], -1),
    ):
        low, high = exact.amin(group, keepdim=True), exact.amax(group, keepdim=True)
        step = (high - low) / (2**bits - 1)
        assert ((found - exact).abs() <= 0.51 * step + 2e-3 * low.abs()).all()
    newest = slice(256 - GROUP, 256)
    assert torch.equal(keys[..., newest, :], exact_keys[..., newest, :])


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_small_and_large_numbers_keep_all_levels(bits: int, size: float) -> None:
    keys, values = (x * size / 10 for x in states(256))
    cache = QuantizedCache(bits=bits)
    cache.update(keys, values)
    found, _ = cache.update(keys[..., :1, :], values[..., :1, :])
    exact = keys[..., :GROUP, :]
    step = (exact.amax(-2, keepdim=True) - exact.amin(-2, keepdim=True)) / (2**bits - 1)
    ends = exact.abs().amax(-2, keepdim=True) * 2**-11 + 2**-25  # what float16 rounds them by
    assert ((found[..., :GROUP, :] - exact).abs() <= 0.501 * step + ends).all()


def test_numbers_that_are_one_number_come_back() -> None:
    cache = QuantizedCache(bits=2)
    cache.update(torch.full((1, 1, 64, 32), 0.5), torch.zeros(1, 1, 64, 32))
    keys, values = cache.update(torch.zeros(1, 1, 1, 32), torch.zeros(1, 1, 1, 32))
    assert (keys[..., :64, :] == 0.5).all()
    assert (values == 0).all()


@pytest.mark.parametrize("name", ["greedy", "beam"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_padding_beside_a_prompt_changes_no_answer(name: str, bits: int) -> None:
    generator = torch.Generator().manual_seed(0)
    long, short = (torch.randint(3, tiny.VOCABULARY, (1, n), generator=generator) for n in (90, 47))
    both = torch.cat([long, torch.nn.functional.pad(short, (43, 0))])
    mask = torch.cat([torch.ones_like(long), torch.nn.functional.pad(torch.ones_like(short), (43, 0))])
    model, method = tiny.llama(dim=64), tiny.choose("decoding", name, cache_bits=bits).build()
    together = method.generate(model, both, mask, max_new_tokens=50, seeds=[0, 1])
    for row, ids in enumerate((long, short)):
        alone = method.generate(model, ids, torch.ones_like(ids), max_new_tokens=50, seeds=[row])
        width = min(alone.shape[1], together.shape[1])
        assert torch.equal(together[row, :width], alone[0, :width])


def test_a_pass_reads_its_own_tokens_as_they_are() -> None:
    cache, exact = QuantizedCache(bits=2), states(200)
    keys, values = cache.update(*exact)
    assert torch.equal(keys, exact[0])
    assert torch.equal(values, exact[1])
    assert cache.packed


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_memory_is_what_the_bits_say(bits: int) -> None:
    tokens = 16 * GROUP
    cache, _, _ = filled(bits, tokens)
    packed = tokens - GROUP
    numbers = 2 * 2 * 3 * 64
    scales = numbers * packed * 32 / GROUP  # a minimum and a maximum of 16 bits for GROUP numbers
    expected = (numbers * packed * bits + scales + numbers * (GROUP + 1) * 32) / 8
    assert cache.num_bytes() == pytest.approx(expected, rel=0.001)
    assert cache.get_seq_length() == tokens + 1


def generated(bits: int, *, count: int = 80, **options: Any) -> Tensor:
    ids = torch.randint(3, tiny.VOCABULARY, (2, 70), generator=torch.Generator().manual_seed(0))
    method = tiny.choose("decoding", options.pop("name", "greedy"), cache_bits=bits, **options).build()
    mask = torch.ones_like(ids)
    mask[0, :5] = 0
    return method.generate(tiny.llama(), ids, mask, max_new_tokens=count, seeds=[0, 1])


def test_a_model_generates_through_it() -> None:
    assert generated(16).shape == generated(4).shape
    beams = generated(8, name="beam", count=6)
    assert beams.shape[0] == 2


def test_fewer_bits_lose_more() -> None:
    ids = torch.randint(3, tiny.VOCABULARY, (2, 128), generator=torch.Generator().manual_seed(0))
    model = tiny.llama()

    def error(bits: int) -> float:
        """Of the logits that a second pass gives on a first one's cache."""
        past = new_cache(model, bits=bits)
        with torch.no_grad():
            exact = model(input_ids=ids).logits[:, 100:]
            first = model(input_ids=ids[:, :100], use_cache=True, past_key_values=past).past_key_values
            found = model(input_ids=ids[:, 100:], past_key_values=first).logits
        return float((found - exact).norm() / exact.norm())

    found = [error(bits) for bits in (16, 8, 4, 2)]
    assert found[0] < 1e-5
    assert found == sorted(found)
    assert found[1] < 0.01


def test_sequences_are_chosen_cut_and_forgotten() -> None:
    cache, keys, _ = filled(4)
    cache.batch_select_indices(torch.tensor([1, 1, 0]))
    chosen, _ = cache.update(*(torch.zeros(3, 3, 1, 64) for _ in range(2)))
    assert torch.equal(chosen[..., :-1, :], keys[[1, 1, 0]])
    cache.crop(-(257 + 1 - 100))
    assert cache.get_seq_length() == 100
    after, _ = cache.update(*(torch.zeros(3, 3, 1, 64) for _ in range(2)))
    assert torch.equal(after[..., :100, :], chosen[..., :100, :])
    cache.reset()
    assert cache.get_seq_length() == 0


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ConfigError, match="between 2 and 8"):
        QuantizedCache(bits=1)
    for name, bits, message in (("greedy", 9, "between 2 and 8"), ("dola", 4, "a cache of its own")):
        choice = tiny.choose("decoding", name, cache_bits=bits)
        problems = list(choice.method.check(choice.config, compose(["scale=smoke"]), None))
        assert any(message in str(problem) for problem in problems)
