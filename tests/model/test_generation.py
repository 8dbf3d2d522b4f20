"""Generation of imported and of our own models: what generate is told, and what it must not infer."""

import pytest
import torch
from composed import tiny
from transformers import DynamicCache, T5Config, T5ForConditionalGeneration

from harness import ConfigError, IncompatibleError

GREEDY = {"max_new_tokens": 6, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def _t5(seed, tmp_path):
    """A T5 of transformers whose start token is its padding token, and ours with its weights."""
    from harness.model.checkpoint import import_checkpoint

    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=40, num_layers=2, num_heads=4, dropout_rate=0.0,
        relative_attention_num_buckets=8, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0,
    )  # fmt: skip
    theirs = T5ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter += 0.2 * torch.randn(parameter.shape)
    theirs.save_pretrained(tmp_path)
    return theirs, import_checkpoint(tmp_path)


@pytest.mark.parametrize("seed", range(4))
@torch.no_grad()
def test_an_imported_t5_generates_what_transformers_does(seed, tmp_path):
    """Its start token is padding; sources are padded on the right, masked or not; greedy and with beams."""
    theirs, ours = _t5(seed, tmp_path)
    source = torch.randint(2, 40, (3, 9), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(source)
    source[0, 6:], mask[0, 6:] = 0, 0
    options = {**GREEDY, "min_new_tokens": 6}
    for extra in ({}, {"attention_mask": mask}, {"num_beams": 3}, {"attention_mask": mask, "num_beams": 2}):
        wanted = theirs.generate(source, **options, **extra)[:, 1:]
        assert torch.equal(ours.generate(source, **options, **extra)[:, 9:], wanted), extra
    embeds = theirs.get_input_embeddings()(source)
    wanted = theirs.generate(inputs_embeds=embeds, attention_mask=mask, **options)[:, 1:]
    assert torch.equal(ours.generate(inputs_embeds=embeds, attention_mask=mask, **options), wanted)
    start = torch.tensor([[0, 7, 9]] * 3)
    wanted = theirs.generate(source, attention_mask=mask, decoder_input_ids=start, **options)
    found = ours.generate(source, attention_mask=mask, decoder_input_ids=start, **options)
    assert torch.equal(found, wanted)


@torch.no_grad()
def test_a_decoder_starts_from_the_last_real_token_of_a_padded_source():
    model = tiny(architecture="encoder_decoder", shape={"num_encoder_layers": 2})
    source = torch.randint(1, 64, (1, 7), generator=torch.Generator().manual_seed(0))
    wanted = model.generate(source, **GREEDY)[:, 7:]
    padded = torch.cat((source, torch.zeros(1, 3, dtype=torch.long)), 1)
    mask = torch.tensor([[1] * 7 + [0] * 3])
    assert torch.equal(model.generate(padded, attention_mask=mask, **GREEDY)[:, 10:], wanted)
    assert torch.equal(model.generate(padded, **GREEDY)[:, 10:], wanted), "padding is inferred as elsewhere"
    with pytest.raises(ConfigError, match="give decoder_start_token_id or decoder_input_ids"):
        model.generate(inputs_embeds=model.get_input_embeddings()(source), **GREEDY)


@torch.no_grad()
def test_embeddings_are_a_prefix_as_tokens_are():
    model = tiny(architecture="prefix_decoder")
    ids = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    ids[0, :3] = 0
    mask = (ids != 0).long()
    wanted = model.generate(ids, attention_mask=mask, **GREEDY)[:, 9:]
    assert torch.equal(model.generate(ids, **GREEDY)[:, 9:], wanted), "the mask is inferred before the prefix"
    embeds = model.get_input_embeddings()(ids)
    found = model.generate(inputs_embeds=embeds, attention_mask=mask, **GREEDY)
    assert torch.equal(found, wanted)
    causal = tiny()
    assert not torch.equal(
        model(ids, prefix_length=mask.sum(1)).logits, causal(ids, attention_mask=mask).logits
    )


@pytest.mark.parametrize(
    "attention", ["full", "sliding_window", "multi_head_latent", "grouped_query", "linear"]
)
@torch.no_grad()
def test_a_static_cache_changes_nothing(attention):
    model = tiny(attention=(attention, {"rope_dim": 4} if attention == "multi_head_latent" else {}))
    ids = torch.randint(1, 64, (2, 9), generator=torch.Generator().manual_seed(0))
    found = model.generate(ids, cache_implementation="static", **GREEDY)
    assert torch.equal(found, model.generate(ids, **GREEDY))


@torch.no_grad()
def test_a_cache_of_transformers_knows_positions_of_ones_own():
    """Also one that grows its layers by need, reordered and cropped as any other; one row of positions
    stands for all.
    """
    model = tiny(position="alibi")
    ids = torch.randint(1, 64, (2, 12))
    for start in ([[50], [9]], [[50]]):
        _continue_at(model, ids, torch.tensor(start) + torch.arange(12))


def _continue_at(model, ids, at):
    whole = model(ids, position_ids=at).logits
    cache = DynamicCache()
    model(ids[:, :6], position_ids=at[:, :6], past_key_values=cache)
    model(ids[:, :3], position_ids=at[:, 6:9], past_key_values=cache)
    cache.crop(-3)
    model(ids[:, 6:8], position_ids=at[:, 6:8], past_key_values=cache)
    cache.batch_select_indices(torch.tensor([1, 0]))
    rest = model(ids[:, 8:].flip(0), position_ids=at[:, 8:].flip(0), past_key_values=cache).logits
    torch.testing.assert_close(rest.flip(0), whole[:, 8:], rtol=1e-4, atol=1e-4)
    assert cache.get_seq_length() == 12


@torch.no_grad()
def test_gaps_in_positions_are_remembered():
    model = tiny(position="alibi", attention=("sliding_window", {"window": 5}))
    ids, at = torch.randint(1, 64, (1, 10)), torch.tensor([[0, 1, 2, 3, 10, 11, 12, 40, 41, 42]])
    whole = model(ids, position_ids=at).logits
    cache = model.new_cache()
    for start, end in ((0, 4), (4, 6), (6, 8), (8, 10)):
        part = model(ids[:, start:end], position_ids=at[:, start:end], past_key_values=cache).logits
        torch.testing.assert_close(part, whole[:, start:end], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_windows_free_their_cache():
    """Decoding 600 tokens keeps a window and what speculative decoding may take back, no more."""
    from harness.ops.window_cache import SPARE

    model = tiny(attention=("sliding_window", {"window": 16}), shape={"max_length": 1024})
    ids = torch.randint(1, 64, (2, 600))
    whole, cache = model(ids).logits, model.new_cache()
    for start in range(0, 600, 40):
        part = model(ids[:, start : start + 40], past_key_values=cache).logits
        torch.testing.assert_close(part, whole[:, start : start + 40], rtol=1e-3, atol=1e-3)
        cache.crop(-30)
        part = model(ids[:, start + 10 : start + 40], past_key_values=cache).logits
        torch.testing.assert_close(part, whole[:, start + 10 : start + 40], rtol=1e-3, atol=1e-3)
        assert cache.layers[0].keys.shape[2] <= 16 + 2 * SPARE
    assert cache.get_seq_length() == 600
    with pytest.raises(IncompatibleError, match="cannot take back 300"):
        cache.crop(-300)


@torch.no_grad()
def test_an_encoders_keys_are_made_once():
    model = tiny(architecture="encoder_decoder", shape={"num_encoder_layers": 2})
    source, calls = torch.randint(1, 64, (2, 9)), []
    model.model.layers[0].cross_attn.k_proj.register_forward_hook(lambda *_: calls.append(1))
    found = model.generate(source, **GREEDY)
    assert len(calls) == 1
    assert torch.equal(found, model.generate(source, use_cache=False, **GREEDY))
    for beams in (2, 3):
        with_cache = model.generate(source, num_beams=beams, **GREEDY)
        assert torch.equal(with_cache, model.generate(source, num_beams=beams, use_cache=False, **GREEDY))


def test_outputs_that_are_asked_for_are_given_by_the_call_or_by_the_config():
    model, ids = tiny(attention="grouped_query"), torch.arange(9)[None]
    out = model(ids, output_attentions=True, output_hidden_states=True)
    assert [tuple(w.shape) for w in out.attentions] == [(1, 4, 9, 9)] * 2
    torch.testing.assert_close(out.attentions[0].sum(-1), torch.ones(1, 4, 9))
    assert (out.attentions[0].triu(1) == 0).all()
    layer = model.model.layers[0].self_attn
    x = model.model.layers[0].attn_norms[0](out.hidden_states[0])
    values = layer.project_keys(x)[1].repeat_interleave(2, 1)
    mixed = layer.o_proj((out.attentions[0] @ values).transpose(1, 2).flatten(2))
    attended = model.model.layers[0].self_attn(x, model.model._view(ids), position=model.model.position)
    torch.testing.assert_close(mixed, attended, rtol=1e-4, atol=1e-5)
    assert model(ids).attentions is None
    model.config.output_hidden_states = True
    assert len(model(ids).hidden_states) == 3
    assert model(ids, output_hidden_states=False).hidden_states is None
    assert isinstance(model(ids, return_dict=False), tuple)
    with pytest.raises(IncompatibleError, match="attention=linear has no weights to show"):
        tiny(attention="linear")(ids, output_attentions=True)


def test_a_table_of_positions_takes_padding_and_packed_documents():
    """As transformers' GPT-2 does: rows count positions from their first real token, documents anew."""
    model = tiny(position="learned", shape={"max_length": 8})
    ids = torch.randint(1, 64, (1, 8))
    alone = model(ids).logits
    padded = torch.cat((torch.zeros(1, 5, dtype=torch.long), ids), 1)
    found = model(padded, attention_mask=(padded != 0).long()).logits[:, 5:]
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-4)
    packed = model(torch.cat((ids, ids), 1), document_ids=torch.tensor([[0] * 8 + [1] * 8])).logits
    torch.testing.assert_close(packed, torch.cat((alone, alone), 1), rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="position=learned holds 8 positions, but 13 tokens"):
        model(padded)
    with pytest.raises(ConfigError, match="holds 8 positions, but 9 tokens"):
        model(ids[:, :2], position_ids=torch.tensor([[7, 8]]))


@torch.no_grad()
def test_a_source_that_was_read_before_keeps_its_mask(tmp_path):
    """`encoder_outputs` with the source's `attention_mask`, in the words of transformers."""
    theirs, ours = _t5(0, tmp_path)
    source = torch.randint(2, 40, (2, 6), generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2])
    options = {**GREEDY, "attention_mask": mask}
    for beams in (1, 3):
        read = theirs.get_encoder()(input_ids=source, attention_mask=mask)
        wanted = theirs.generate(encoder_outputs=read, num_beams=beams, **options)
        found = ours.generate(encoder_outputs=(ours.model.encode(source, mask),), num_beams=beams, **options)
        assert found.tolist() == wanted[:, 1:].tolist()
    embeds = ours.get_input_embeddings()(source)
    with pytest.raises(ConfigError, match="input_ids or as inputs_embeds, not both"):
        ours.generate(source, inputs_embeds=embeds, **options)
