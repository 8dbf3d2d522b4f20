"""Architectures: who sees whom, exactly, and generation with a prefix and from a source."""

import pytest
import torch
from composed import tiny

from harness import ConfigError


def _reads(model, length, **inputs):
    """Which input token moves the hidden state of which position: found by changing the inputs one by one."""
    x = torch.randn(1, length, 32, generator=torch.Generator().manual_seed(0))
    base = model.model(inputs_embeds=x, **inputs).last_hidden_state
    reads = torch.zeros(length, length, dtype=torch.bool)
    for k in range(length):
        moved = x.clone()
        moved[:, k] += 1
        reads[:, k] = (model.model(inputs_embeds=moved, **inputs).last_hidden_state != base).any(-1)[0]
    return reads


@torch.no_grad()
def test_a_prefix_is_read_in_both_directions_and_nothing_else_is():
    model, at = tiny(architecture="prefix_decoder"), torch.arange(10)
    prefix = torch.tensor([4])
    wanted = (at[None] <= at[:, None]) | (at[None] < 4)
    assert torch.equal(_reads(model, 10, prefix_length=prefix), wanted)
    assert torch.equal(_reads(model, 10), at[None] <= at[:, None])


def test_a_prefix_longer_than_the_sequence_is_refused():
    with pytest.raises(ConfigError, match="prefix_length=11 is longer than the sequence of 10 tokens"):
        tiny(architecture="prefix_decoder")(torch.arange(10)[None], prefix_length=torch.tensor([11]))


@torch.no_grad()
def test_generation_takes_the_prompt_as_the_prefix():
    model = tiny(architecture="prefix_decoder")
    ids = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    found = model.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0)
    for row in range(2):
        tokens = ids[row : row + 1, 3 * (row == 0) :]
        start = tokens.shape[1]
        for _ in range(4):
            logits = model(tokens, prefix_length=torch.tensor([start])).logits
            tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), 1)
        assert torch.equal(found[row, 9:], tokens[0, start:])


@torch.no_grad()
def test_generation_takes_the_prompt_as_the_source_of_an_encoder():
    model = tiny(architecture="encoder_decoder", shape={"num_encoder_layers": 2})
    ids = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    found = model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
    tokens = ids[:, -1:]
    for _ in range(4):
        logits = model(tokens, encoder_input_ids=ids).logits
        tokens = torch.cat((tokens, logits[:, -1:].argmax(-1)), 1)
    assert torch.equal(found, torch.cat((ids, tokens[:, 1:]), 1))


@torch.no_grad()
def test_padding_of_the_source_changes_nothing():
    model = tiny(architecture="encoder_decoder", position="relative_t5", shape={"num_encoder_layers": 2})
    ids, source = torch.arange(12)[None], torch.arange(10, 17)[None]
    padded = torch.cat((source, torch.zeros(1, 3, dtype=torch.long)), 1)
    mask = torch.tensor([[1] * 7 + [0] * 3])
    torch.testing.assert_close(
        model(ids, encoder_input_ids=padded, encoder_attention_mask=mask).logits,
        model(ids, encoder_input_ids=source).logits,
        rtol=1e-4,
        atol=1e-5,
    )


def test_an_encoder_needs_layers_and_layers_need_an_encoder():
    with pytest.raises(ConfigError, match=r"set model\.num_encoder_layers to at least 1"):
        tiny(architecture="encoder_decoder")
    with pytest.raises(ConfigError, match="architecture=causal_decoder has no encoder; set it to 0"):
        tiny(shape={"num_encoder_layers": 2})
    with pytest.raises(ConfigError, match="architecture=causal_decoder has no encoder"):
        tiny()(torch.arange(4)[None], encoder_input_ids=torch.arange(4)[None])
