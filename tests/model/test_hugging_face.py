"""What transformers asks of a model in its own suites, over thirteen configurations of ours."""

import pytest
import torch
import turns
from composed import tiny
from thirteen import CONFIGURATIONS, inputs_of, model_of
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    PreTrainedModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from harness.model.checkpoint import export_checkpoint

EACH = pytest.mark.parametrize("name", CONFIGURATIONS)


@EACH
def test_checkpointed_layers_are_found_and_change_no_gradient(name):
    model = model_of(name).train()
    inputs = inputs_of(model)
    gradients = []
    for options in (None, {"use_reentrant": False}, {"use_reentrant": True}):
        if options is not None:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
            layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
            assert len(layers) == len(model.model.layers) + len(getattr(model.model.encoder, "layers", ()))
            assert all(layer.gradient_checkpointing for layer in layers)
        model.zero_grad()
        out = model(**inputs, labels=inputs["input_ids"], use_cache=True)
        assert options is None or out.past_key_values is None
        out.loss.backward()
        gradients.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
    model.gradient_checkpointing_disable()
    assert not any(getattr(m, "gradient_checkpointing", False) for m in model.modules())
    for other in gradients[1:]:
        assert other.keys() == gradients[0].keys()
        for key, gradient in other.items():
            torch.testing.assert_close(gradient, gradients[0][key], rtol=1e-4, atol=1e-6)


@EACH
@torch.no_grad()
def test_embeddings_tuples_and_hidden_states_are_what_they_say(name):
    model = model_of(name)
    inputs = inputs_of(model)
    out = model(**inputs, output_hidden_states=True)
    assert [tuple(state.shape) for state in out.hidden_states] == [(2, 9, 32)] * 3
    torch.testing.assert_close(model.lm_head(out.hidden_states[-1]), out.logits)
    embeds = {**inputs, "inputs_embeds": model.get_input_embeddings()(inputs["input_ids"])}
    del embeds["input_ids"]
    torch.testing.assert_close(model(**embeds).logits, out.logits)
    row = model(**inputs, return_dict=False)
    assert torch.equal(row[0], out.logits)
    last = model(**inputs, logits_to_keep=1).logits
    torch.testing.assert_close(last, out.logits[:, -1:])
    kept = model(**inputs, use_cache=True)
    torch.testing.assert_close(kept.logits, out.logits)
    assert kept.past_key_values.get_seq_length() == 9


@pytest.mark.parametrize("name", [n for n in CONFIGURATIONS if n not in ("encoder", "t5")])
@torch.no_grad()
def test_positions_that_start_anew_keep_documents_apart(name):
    """As transformers reads a call without a mask and a cache, which its padding-free collator makes."""
    model = model_of(name)
    ids = torch.randint(1, 64, (2, 16), generator=torch.Generator().manual_seed(0))
    alone = [model(part).logits for part in ids.split((7, 9), dim=1)]
    at = torch.cat((torch.arange(7), torch.arange(9)))
    for given in (at, at[None], at.expand(2, -1)):
        found = model(ids, position_ids=given, use_cache=False).logits
        torch.testing.assert_close(found, torch.cat(alone, dim=1), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_positions_that_start_anew_are_read_as_by_transformers(tmp_path):
    model = tiny()
    export_checkpoint(model, tmp_path, model_type="llama")
    llama = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.randint(1, 64, (1, 16), generator=torch.Generator().manual_seed(0))
    at = torch.cat((torch.arange(3, 10), torch.arange(9)))[None]
    for use_cache in (False, True):  # a cache's positions are those of one text, whatever they are
        found = model(ids, position_ids=at, use_cache=use_cache).logits
        wanted = llama(ids, position_ids=at, use_cache=use_cache).logits
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


@EACH
def test_a_call_keeps_a_cache_as_its_config_says(name):
    model = model_of(name)
    inputs = inputs_of(model)
    assert model(**inputs).past_key_values.get_seq_length() == 9
    assert model.train()(**inputs).past_key_values is None
    model.eval().config.use_cache = False
    assert model(**inputs).past_key_values is None
    assert model(**inputs, use_cache=True).past_key_values is not None


@EACH
@torch.no_grad()
def test_it_is_saved_and_loaded_by_every_auto_class(name, tmp_path):
    model = model_of(name)
    inputs = inputs_of(model)
    model.save_pretrained(tmp_path)
    again, report = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.equal(again.eval()(**inputs).logits, model(**inputs).logits)
    backbone, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(backbone, PreTrainedModel)
    assert not report["missing_keys"]
    state = model.model(**inputs).last_hidden_state
    assert torch.equal(backbone.eval()(**inputs).last_hidden_state, state)
    config = AutoConfig.from_pretrained(tmp_path, num_labels=3, pad_token_id=0)
    scored = AutoModelForSequenceClassification.from_pretrained(tmp_path, config=config).eval()
    found = scored(**inputs).logits
    torch.testing.assert_close(found, scored.score(state[:, -1]))
    backbone.save_pretrained(tmp_path / "backbone")
    headed, report = AutoModelForCausalLM.from_pretrained(tmp_path / "backbone", output_loading_info=True)
    assert set(report["missing_keys"]) <= {"lm_head.weight"}
    assert torch.equal(headed.eval()(**inputs).logits, model(**inputs).logits), "tied: the head is there"


@EACH
def test_a_step_of_training_moves_every_weight_and_resizing_keeps_the_rest(name):
    model = model_of(name).train()
    inputs = inputs_of(model, 20)
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    without = [n for n, p in model.named_parameters() if p.grad is None]
    assert all(".experts." in n for n in without), without
    model.eval()
    with torch.no_grad():
        before = model(**inputs).logits
        model.resize_token_embeddings(70)
        after = model(**inputs).logits
    assert after.shape[-1] == 70 == model.config.vocab_size == model.config.spec["vocab_size"]
    torch.testing.assert_close(after[..., :64], before)


@pytest.mark.parametrize("name", turns.fast(CONFIGURATIONS, ["default", "mamba2"]))
def test_a_model_compiles_as_one_graph_with_a_mask(name):
    """No break of the graph for masks, positions or documents; the graph is run as it is, uncompiled."""
    torch._dynamo.reset()  # the code is shared with other models, which count as recompilations of it
    model = model_of(name)
    inputs = inputs_of(model)
    if name == "paged":
        inputs["use_cache"] = False  # whose blocks are counted in Python
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    at = (inputs["attention_mask"].cumsum(1) - 1).clamp_min(0)
    for more in ({}, {"position_ids": at}, {"position_ids": at + 3}):
        torch.testing.assert_close(
            compiled(**inputs, **more).logits, model(**inputs, **more).logits, rtol=1e-4, atol=1e-4
        )
    if model.model.encoder is not None:
        return
    documents = torch.tensor([[0] * 4 + [1] * 5] * 2)
    torch.testing.assert_close(
        compiled(inputs["input_ids"], document_ids=documents).logits,
        model(inputs["input_ids"], document_ids=documents).logits,
        rtol=1e-4,
        atol=1e-4,
    )


@pytest.mark.parametrize("name", turns.fast(CONFIGURATIONS, ["default", "t5"]))
@torch.no_grad()
def test_a_model_is_exported_with_a_mask_for_batches_of_any_size(name):
    model = model_of(name)
    inputs = inputs_of(model)

    class Logits(torch.nn.Module):
        """Tensors in, a tensor out."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, inputs):
            return self.model(**inputs, use_cache=False).logits

    longest = model.model.position.max_length() or 4096
    rows = torch.export.Dim("rows", max=16)
    length, source = (torch.export.Dim(name, min=3, max=longest) for name in ("tokens", "source"))
    sizes = {
        key: {0: rows} if key == "prefix_length" else {0: rows, 1: source if "encoder" in key else length}
        for key in inputs
    }
    program = torch.export.export(Logits(), (inputs,), dynamic_shapes=(sizes,))
    for length in (5, 16, 31, 64 if model.model.position.max_length() else 150):
        longer = inputs_of(model, length)
        torch.testing.assert_close(program.module()(longer), model(**longer).logits)


def test_a_shape_set_by_its_common_name_is_built_and_saved(tmp_path):
    config = tiny().config
    config.num_hidden_layers, config.vocab_size = 1, 10
    model = type(tiny())(config)
    assert len(model.model.layers) == 1
    assert model.lm_head.weight.shape[0] == 10
    model.save_pretrained(tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.spec == model.config.spec
    with pytest.raises(RuntimeError, match="size"):
        AutoModelForCausalLM.from_pretrained(tmp_path, vocab_size=11)
