"""What transformers' own suite for generation asks of a model, over thirteen configurations of ours.

That suite lies in no distribution (`make test-transformers` runs it from a clone); these are its checks
written anew: every way to generate, what comes back, and every way to say the same prompt.
"""

from typing import Any

import pytest
import torch
import turns
from thirteen import CONFIGURATIONS, RECURRENT, inputs_of, model_of
from transformers import GenerationMixin

EACH = pytest.mark.parametrize("name", CONFIGURATIONS)
NEW = 4
GREEDY: dict[str, Any] = {
    "max_new_tokens": NEW,
    "do_sample": False,
    "eos_token_id": None,
    "pad_token_id": 0,
}
DECODERS = pytest.mark.parametrize("name", [n for n in CONFIGURATIONS if n not in ("encoder", "t5")])


def prompt(model: Any) -> dict[str, torch.Tensor]:
    """Ids and a mask; the prompt is the prefix or the source of an architecture that has one."""
    return {key: value for key, value in inputs_of(model).items() if key in ("input_ids", "attention_mask")}


def scored(model: Any, sequences: torch.Tensor, mask: torch.Tensor, asked: dict[str, Any]) -> torch.Tensor:
    """Log-probabilities of the new tokens of sequences by full passes, without a cache (BT)."""
    length = mask.shape[1]
    inputs: dict[str, Any] = {"use_cache": False}
    if model.model.encoder is not None:
        source, given = asked["input_ids"], asked["attention_mask"]
        last = (given * torch.arange(length)).argmax(dim=1, keepdim=True)
        rows = torch.cat((source.gather(1, last), sequences[:, length:]), dim=1)
        inputs |= {"encoder_input_ids": source, "encoder_attention_mask": given}
        begin = 0
    else:
        rows, begin = sequences, length - 1
        inputs["attention_mask"] = torch.cat(
            (mask, torch.ones(len(rows), sequences.shape[1] - length)), 1
        ).long()
        if model.model.architecture.uses_prefix():
            inputs["prefix_length"] = mask.sum(dim=1)
    logits = model(rows, **inputs).logits[:, begin:-1].log_softmax(-1)
    return logits.gather(2, rows[:, begin + 1 :, None])[..., 0]


@EACH
@torch.no_grad()
def test_every_way_to_generate_gives_the_tokens_that_full_passes_score(name: str) -> None:
    """Greedy, sampled and with beams: as many tokens as asked, with the scores that full passes give."""
    model = model_of(name)
    asked = prompt(model)
    assert isinstance(model, GenerationMixin)
    assert model.can_generate()
    for sample in (False, True):
        for beams, returned in ((1, 1), (3, 1), (3, 2), (1, 2)):
            if returned == 2 and beams == 1 and not sample:
                continue
            options = {**GREEDY, "do_sample": sample, "num_beams": beams, "num_return_sequences": returned}
            torch.manual_seed(0)
            out = model.generate(
                **asked, **options, return_dict_in_generate=True, output_scores=True, top_k=0
            )
            assert out.sequences.shape == (2 * returned, 9 + NEW)
            assert torch.equal(out.sequences[:, :9], asked["input_ids"].repeat_interleave(returned, 0))
            if sample and beams > 1:  # sampled beams are scored by what was drawn from, step by step
                continue
            repeated = {key: value.repeat_interleave(returned, 0) for key, value in asked.items()}
            wanted = scored(model, out.sequences, repeated["attention_mask"], repeated)
            if beams == 1:
                new = out.sequences[:, 9:]
                steps = torch.stack(out.scores, dim=1).log_softmax(-1).gather(2, new[..., None])[..., 0]
                torch.testing.assert_close(steps, wanted, rtol=1e-4, atol=1e-4)
            else:
                torch.testing.assert_close(out.sequences_scores, wanted.sum(1) / NEW, rtol=1e-4, atol=1e-4)


@EACH
@torch.no_grad()
def test_what_comes_back_has_the_shape_of_every_step(name: str) -> None:
    model = model_of(name)
    asked = prompt(model)
    shown = name not in RECURRENT
    for cached in (True, False):
        out = model.generate(
            **asked,
            **GREEDY,
            use_cache=cached,
            return_dict_in_generate=True,
            output_scores=True,
            output_logits=True,
            output_hidden_states=True,
            output_attentions=shown,
        )
        encoded = model.model.encoder is not None
        states = out.decoder_hidden_states if "decoder_hidden_states" in out else out.hidden_states
        assert len(out.scores) == len(out.logits) == len(states) == NEW
        before = 1 if encoded else 9
        for step, (logits, layers) in enumerate(zip(out.logits, states, strict=True)):
            assert logits.shape == (2, 64)
            assert torch.equal(logits.argmax(-1), out.sequences[:, 9 + step])
            fed = 1 if cached and step else before + step
            assert [tuple(state.shape) for state in layers] == [(2, fed, 32)] * 3
        if shown:
            for step, layers in enumerate(out.attentions):
                fed = 1 if cached and step else before + step
                assert len(layers) == 2
                for weights in layers:
                    assert weights.shape[:3] == (2, 4, fed)
                    rows = weights[:, :, -1].sum(-1)
                    torch.testing.assert_close(rows, torch.ones_like(rows))
        if cached:
            assert out.past_key_values.get_seq_length() == before + NEW - 1
            first = out.sequences
        else:
            assert torch.equal(out.sequences, first)


@DECODERS
@torch.no_grad()
def test_embeddings_of_a_prompt_are_continued_as_its_tokens(name: str) -> None:
    model = model_of(name)
    asked = prompt(model)
    embeds = model.get_input_embeddings()(asked["input_ids"])
    for beams in (1, 3):
        options = {**GREEDY, "num_beams": beams, "attention_mask": asked["attention_mask"]}
        wanted = model.generate(asked["input_ids"], **options)[:, 9:]
        assert torch.equal(model.generate(inputs_embeds=embeds, **options), wanted)
        both = model.generate(asked["input_ids"], inputs_embeds=embeds, **options)
        assert torch.equal(both[:, 9:], wanted)
    other = model.generate(inputs_embeds=torch.randn_like(embeds), **{**GREEDY, "max_new_tokens": 12})
    assert not torch.equal(other, model.generate(inputs_embeds=embeds, **{**GREEDY, "max_new_tokens": 12}))


@DECODERS
@torch.no_grad()
def test_a_text_is_continued_from_its_cache_as_at_once(name: str) -> None:
    """Two calls of two tokens, the second on the first's cache, are one of four."""
    model = model_of(name)
    asked = prompt(model)
    options = {**GREEDY, "return_dict_in_generate": True}
    wanted = model.generate(**asked, **options).sequences
    more = {"prefix_length": asked["attention_mask"].sum(1)} if name == "prefix" else {}
    half = model.generate(**asked, **{**options, "max_new_tokens": 2})
    mask = torch.nn.functional.pad(asked["attention_mask"], (0, 2), value=1)
    rest = model.generate(
        half.sequences,
        attention_mask=mask,
        past_key_values=half.past_key_values,
        **{**options, "max_new_tokens": 2},
        **more,
    )
    assert torch.equal(rest.sequences, wanted)
    assert rest.past_key_values.get_seq_length() == 9 + NEW - 1


@DECODERS
@torch.no_grad()
def test_drafts_of_another_model_and_of_the_prompt_change_no_token(name: str) -> None:
    """Assisted and prompt-lookup decoding are greedy decoding, or refused, as states take nothing back."""
    model = model_of(name)
    asked = {"input_ids": prompt(model)["input_ids"][1:].repeat(1, 2)}
    options = {**GREEDY, "max_new_tokens": 8}
    drafts = ({"assistant_model": model_of("default", seed=1)}, {"prompt_lookup_num_tokens": 3})
    if name in RECURRENT:
        for draft in drafts:
            with pytest.raises(ValueError, match="stateful"):
                model.generate(**asked, **options, **draft)
        return
    wanted = model.generate(**asked, **options)
    for draft in drafts:
        assert torch.equal(model.generate(**asked, **options, **draft), wanted), list(draft)


@EACH
@torch.no_grad()
def test_an_end_is_followed_by_padding_and_what_is_not_known_is_refused(name: str) -> None:
    model = model_of(name)
    asked = prompt(model)
    plain = model.generate(**asked, **GREEDY)
    end = int(plain[0, 10])
    found = model.generate(**asked, **{**GREEDY, "eos_token_id": end})
    for row, free in zip(found[:, 9:].tolist(), plain[:, 9:].tolist(), strict=True):
        kept = free.index(end) + 1 if end in free else len(free)
        assert row == (free[:kept] + [0] * NEW)[: len(row)]
    least = model.generate(**asked, **{**GREEDY, "eos_token_id": end}, min_new_tokens=NEW)
    assert least.shape[1] == 9 + NEW
    assert end not in least[:, 9 : 9 + NEW - 1].tolist()[0]
    with pytest.raises(ValueError, match="no_such_option"):
        model.generate(**asked, **GREEDY, no_such_option=1)


@DECODERS
@torch.no_grad()
def test_a_prompt_needs_no_tokens_where_texts_have_a_beginning(name: str) -> None:
    model = model_of(name)
    found = model.generate(**GREEDY, bos_token_id=5)
    assert found.shape == (1, 1 + NEW)
    assert torch.equal(found, model.generate(torch.tensor([[5]]), **GREEDY))


@DECODERS
@torch.no_grad()
def test_positions_of_ones_own_continue_as_those_that_are_counted(name: str) -> None:
    model = model_of(name)
    asked = prompt(model)
    at = (asked["attention_mask"].cumsum(1) - 1).clamp_min(0)
    assert torch.equal(model.generate(**asked, **GREEDY, position_ids=at), model.generate(**asked, **GREEDY))


@pytest.mark.parametrize(
    "name",
    turns.fast([n for n in CONFIGURATIONS if n not in (*RECURRENT, "paged", "encoder", "t5")], ["default"]),
)
@torch.no_grad()
def test_a_step_on_a_cache_of_fixed_size_compiles_as_one_graph(name: str) -> None:
    """`cache_implementation="static"` is what generation compiles for."""
    torch._dynamo.reset()
    model = model_of(name)
    asked = prompt(model)
    options = {**GREEDY, "cache_implementation": "static"}
    wanted = model.generate(**asked, **options)
    model.forward = torch.compile(model.forward, fullgraph=True, backend="eager", dynamic=True)
    assert torch.equal(model.generate(**asked, **options), wanted)
