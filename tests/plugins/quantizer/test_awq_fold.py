"""AWQ's factors folded into what lies before a layer: where, and that the model stays what it is."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from exported_models import gpt2
from harness_plugins.quantizer._fold import Fold, find_folds, fold

from harness import Calibration, weight_matrix
from harness.ops.packed_linear import PackedLinear

IDS = torch.arange(3, 35)[None]


def gemma() -> Any:
    """Its norms multiply by one plus their weight, which no division of the weight divides."""
    from transformers import GemmaConfig, GemmaForCausalLM

    torch.manual_seed(0)
    return GemmaForCausalLM(GemmaConfig(**tiny.SIZES)).eval()


def own() -> Any:
    from harness.conformance.causal import own_model

    return own_model()


def in_first_block(model: Any) -> dict[str, str | None]:
    """For each layer of the first block what can take its factors, both by their last names."""
    return {
        reader.rpartition(".")[2]: each.before and each.before.rpartition(".")[2]
        for each in find_folds(model, IDS)
        for reader in each.readers
        if ".0." in reader
    }


LLAMA = {
    "q_proj": "input_layernorm",
    "k_proj": "input_layernorm",
    "v_proj": "input_layernorm",
    "o_proj": "v_proj",
    "gate_proj": "post_attention_layernorm",
    "up_proj": "post_attention_layernorm",
    "down_proj": "up_proj",
}
"""The pairs of llm-awq's auto_scale_block for LlamaDecoderLayer."""


def test_the_pairs_of_llm_awq_are_found() -> None:
    assert in_first_block(tiny.llama()) == LLAMA


def test_grouped_heads_take_no_factors_as_in_llm_awq() -> None:
    assert in_first_block(tiny.llama(kv_heads=2)) == LLAMA | {"o_proj": None}


def test_what_is_not_linear_takes_no_factors() -> None:
    assert in_first_block(gemma())["q_proj"] is None
    found = in_first_block(gpt2())
    assert found == {"c_attn": "ln_1", "c_proj": None, "c_fc": "ln_2"}


@pytest.mark.parametrize("make", [tiny.llama, gpt2, own])
def test_folding_leaves_the_model_what_it_is(make: Any) -> None:
    model = make()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
        folds = [each for each in find_folds(model, IDS) if each.before is not None]
        assert all(torch.equal(before[n], t) for n, t in model.state_dict().items()), "trying leaves no trace"
        assert folds
        for each in folds:
            inputs = weight_matrix(model.get_submodule(each.readers[0])).shape[1]
            fold(model, each, torch.rand(inputs, generator=torch.Generator().manual_seed(1)) + 0.5)
        assert torch.allclose(model(input_ids=IDS).logits, logits, atol=1e-5)


def test_a_wrong_pair_changes_the_model() -> None:
    model = tiny.llama()
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
        block = "model.layers.0.mlp"
        fold(model, Fold((f"{block}.down_proj",), f"{block}.gate_proj"), torch.full((64,), 2.0))
        assert (model(input_ids=IDS).logits - logits).abs().max() > 1e-2


@pytest.mark.parametrize("kv_heads", [2, 4])
def test_folded_layers_keep_no_factors_and_err_less_than_rounding(kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(3, tiny.VOCABULARY, (24, 64), generator=generator)
    calibration = Calibration(batches_BT=[rows[:16]], held_out_BT=[rows[16:20]], sha256="")

    def model() -> Any:
        made = tiny.llama(kv_heads=kv_heads)
        with torch.no_grad():  # activations with outliers, which AWQ is for
            for block in made.model.layers:
                block.input_layernorm.weight[::8] *= 12
                block.post_attention_layernorm.weight[::8] *= 12
        return made

    found = {}
    with torch.no_grad():
        exact = model()(input_ids=rows[20:]).logits
        cases: dict[str, dict[str, Any]] = {"rtn": {}, "awq": {"fold": True}}
        for name, options in cases.items():
            options |= {"bits": 3, "granularity": "group", "group_size": 16}
            method = tiny.choose("quantizer", name, **options).build()
            packed = method.quantize(model(), calibration if method.needs_calibration else None)
            found[name] = float((packed(input_ids=rows[20:]).logits - exact).norm())
            layers = [m for m in packed.modules() if isinstance(m, PackedLinear)]
            assert not any(hasattr(layer, "input_scale") for layer in layers)
            for layer in layers:
                stated = method.bits_per_weight(layer.in_features, layer.out_features)
                assert layer.stored_bits() / layer.num_weights() == pytest.approx(stated, rel=0.02)
    assert method.facts["layers_folded"] == (14 if kv_heads == 4 else 12)
    assert found["awq"] < 0.9 * found["rtn"]
