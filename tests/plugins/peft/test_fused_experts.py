"""Adapters on experts that Hugging Face keeps in one parameter: put on by peft, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from tiny_models import mixture

from harness import ConfigError, IncompatibleError
from harness.compose import compose
from harness.conformance.causal import logits, tokens
from harness.conformance.test_peft import train_a_little
from harness.plan.problems import problems

FAMILIES = ["Mixtral", "Qwen3Moe", "GptOss"]


def base(family: str = "Mixtral") -> Any:
    return mixture(family).requires_grad_(False)


def shaken(model: Any) -> Any:
    """The model with what it trains moved at random, the same way each time."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model.eval()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("name", "scale"), [("lora", 16 / 4), ("rslora", 16 / 2), ("lora_plus", 16 / 4)])
def test_all_linear_layers_are_adapted_experts_included(
    family: str, name: str, scale: float, tmp_path: Path
) -> None:
    method = tiny.choose("peft", name, rank=4).build()
    model = method.apply(base(family))
    trained = [p for p in model.parameters() if p.requires_grad]
    # Two blocks; q and o 32 x 32, k and v 32 x 16; four experts of 32 x 128 and 64 x 32; rank 4.
    by_hand = 2 * 4 * (2 * (32 + 32) + 2 * (32 + 16) + 4 * ((32 + 128) + (64 + 32)))
    assert sum(p.numel() for p in trained) == method.trainable_parameters(base(family)) == by_hand
    assert torch.equal(logits(model, tokens()), logits(base(family), tokens())), "it starts as the model"
    train_a_little(model)
    assert all(p.grad is not None for p in trained)
    moved = logits(shaken(model), tokens())
    method.save(model, tmp_path)
    again = method.load(base(family), tmp_path, trainable=False)
    assert torch.equal(logits(again, tokens()), moved)
    with method.disabled(model):
        assert torch.equal(logits(model, tokens()), logits(base(family), tokens()))
    layer = next(m for m in model.modules() if getattr(m, "parameter_name", "") == "down_proj")
    a_ERI = layer.lora_A["default"].weight.reshape(4, 4, -1)
    b_OER = layer.lora_B["default"].weight.reshape(-1, 4, 4).transpose(1, 2)  # experts vary fastest
    update_EOI = scale * torch.einsum("oer,eri->eoi", b_OER, a_ERI)
    before = layer.get_param().detach().clone()
    merged = method.merge(model)
    after = merged.get_submodule("model.layers.0.mlp.experts").down_proj
    update = update_EOI.transpose(1, 2) if family == "GptOss" else update_EOI
    assert torch.allclose(after, before + update, atol=1e-5)
    assert torch.allclose(logits(merged, tokens()), moved, atol=1e-4)
    assert set(merged.state_dict()) == set(base(family).state_dict())


def test_a_parallel_adapter_leaves_a_mixtures_routing_beside_its_output() -> None:
    method = tiny.choose("peft", "adapter_parallel").build()
    model = method.apply(base("GptOss"))
    assert torch.equal(logits(model, tokens()), logits(base("GptOss"), tokens())), "it starts as the model"
    train_a_little(model)
    assert not torch.allclose(logits(model, tokens()), logits(base("GptOss"), tokens()), atol=1e-4)


def test_dense_and_shared_layers_of_a_mixture_are_adapted_as_themselves(tmp_path: Path) -> None:
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2}
    ranks = {"q_lora_rank": 16, "kv_lora_rank": 16, "n_group": 1, "topk_group": 1, "n_routed_experts": 4}
    heads = {"qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16, "moe_intermediate_size": 32}
    config = DeepseekV3Config(
        vocab_size=64,
        num_hidden_layers=2,
        first_k_dense_replace=1,
        num_experts_per_tok=2,
        **shape,
        **ranks,
        **heads,
    )

    def build() -> Any:
        torch.manual_seed(0)
        return DeepseekV3ForCausalLM(config).requires_grad_(False).eval()

    method = tiny.choose("peft", "lora", rank=4).build()
    model = method.apply(build())
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained.values()) == method.trainable_parameters(build())
    for part in ("layers.0.mlp.gate_proj", "layers.1.mlp.shared_experts.up_proj"):
        assert any(f"{part}.lora_A" in name for name in trained), part
    moved = logits(shaken(model), tokens())
    method.save(model, tmp_path)
    assert torch.equal(logits(method.load(build(), tmp_path, trainable=False), tokens()), moved)
    assert torch.allclose(logits(method.merge(model), tokens()), moved, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_the_peft_library_makes_of_the_parameters_by_name(family: str, tmp_path: Path) -> None:
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(
        r=4,
        lora_alpha=16,
        target_modules=["q_proj"],
        target_parameters=["experts.gate_up_proj", "experts.down_proj"],
        task_type="CAUSAL_LM",
    )
    theirs = shaken(get_peft_model(base(family), config))
    options = {"target_modules": ["q_proj", "gate_up_proj", "down_proj"], "rank": 4, "alpha": 16.0}
    method = tiny.choose("peft", "lora", **options).build()
    ours = shaken(method.apply(base(family)))
    assert torch.equal(logits(ours, tokens()), logits(theirs, tokens()))
    theirs.save_pretrained(tmp_path / "theirs")
    read = method.load(base(family), tmp_path / "theirs", trainable=False)
    assert torch.equal(logits(read, tokens()), logits(theirs, tokens()))
    method.save(ours, tmp_path / "ours")
    read = PeftModel.from_pretrained(base(family), tmp_path / "ours")
    assert torch.equal(logits(read, tokens()), logits(ours, tokens()))


@pytest.mark.filterwarnings("error:The following rank_pattern")
def test_names_ranks_and_blocks_choose_experts_as_they_do_layers(tmp_path: Path) -> None:
    options: dict[str, Any] = {"target_modules": ["down_proj"], "layers_to_transform": [1], "rank": 4}
    method = tiny.choose("peft", "lora", rank_pattern={"down_proj": 2}, **options).build()
    model = method.apply(base())
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert names
    assert all("layers.1.mlp.experts" in name for name in names)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 4 * 2 * (64 + 32)
    method.save(shaken(model), tmp_path)
    read = method.load(base(), tmp_path, trainable=True)
    assert torch.equal(logits(read, tokens()), logits(model, tokens()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dropout": 0.1}, r"dropout=0.1 cannot drop inputs of experts .*experts.gate_up_proj"),
        ({"rank": 33}, r"rank 33 is above the size of layer model.layers.0.self_attn.q_proj"),
        (
            {"rank": 17, "target_modules": ["down_proj"], "rank_pattern": {"down_proj": 40}},
            r"down_proj, 64 x 32",
        ),
        ({"target_modules": ["experts"]}, r"experts is no layer .* down_proj, .*gate_up_proj"),
    ],
)
def test_what_experts_do_not_take_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises((ConfigError, IncompatibleError), match=message):
        tiny.choose("peft", "lora", **options).build().apply(base())


@pytest.mark.parametrize("name", ["dora", "vera", "boft", "pissa", "adalora"])
def test_experts_are_not_left_out_in_silence(name: str) -> None:
    with pytest.raises(IncompatibleError, match=r"experts of this model are none .*\[k_proj, o_proj, q_proj"):
        tiny.choose("peft", name).build().apply(base())
    named = tiny.choose("peft", name, target_modules=["q_proj"]).build()
    train_a_little(named.apply(base()))


class OwnLayout(torch.nn.Module):
    """Experts in a layout of its own beside a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = torch.nn.Parameter(torch.zeros(2, 4, 4))
        self.out = torch.nn.Linear(4, 4)


def test_experts_in_an_unknown_layout_are_not_left_out_in_silence() -> None:
    with pytest.raises(IncompatibleError, match="experts of OwnLayout holds 2 x 4 x 4 weights"):
        tiny.choose("peft", "lora", rank=2).build().apply(OwnLayout())


@pytest.mark.parametrize("name", ["lora", "dora", "vera", "boft"])
@pytest.mark.parametrize("named", [False, True])
def test_packed_experts_are_adapted_one_by_one(name: str, named: bool) -> None:
    packed = tiny.choose("quantizer", "rtn").build().quantize(mixture("Mixtral"), None)
    options: dict[str, Any] = {"target_modules": ["down_proj"]} if named else {}
    adapted = tiny.choose("peft", name, **options).build().apply(packed.requires_grad_(False))
    experts = {n.split(".lora_")[0] for n, p in adapted.named_parameters() if p.requires_grad}
    assert any("experts.down_proj.3" in name for name in experts)
    assert named != any("q_proj" in name for name in experts)


def test_an_adapter_on_fused_experts_is_not_put_on_packed_ones(tmp_path: Path) -> None:
    method = tiny.choose("peft", "lora", target_modules=["down_proj"]).build()
    method.save(shaken(method.apply(base())), tmp_path)
    packed = tiny.choose("quantizer", "rtn").build().quantize(mixture("Mixtral"), None)
    with pytest.raises(IncompatibleError, match=r"experts in one parameter .*down_proj.*quantize.merge=true"):
        method.load(packed, tmp_path, trainable=False)


@pytest.mark.parametrize(
    ("stages", "options", "message"),
    [
        ("[instruct,quantize]", ["quantize.merge=false"], "packing gives each expert a layer of its own"),
        ("[instruct,quantize]", [], ""),
        ("[quantize,instruct]", ["peft.target_modules=[down_proj]", "peft.dropout=0.1"], ""),
        ("[instruct,quantize]", ["peft.dropout=0.1"], "cannot drop inputs of experts"),
        ("[quantize,instruct]", ["peft=dora", "peft.target_modules=[down_proj]"], ""),
    ],
)
def test_the_plan_knows_where_experts_are_layers(
    stages: str, options: list[str], message: str, tmp_path: Path
) -> None:
    tiny.byte_tokenizer(tmp_path)
    base().save_pretrained(tmp_path)
    asked = [f"model.path={tmp_path}", f"stages={stages}", "quantizer=rtn", "peft=lora", *options]
    cell = compose(["model=pretrained", "instruction=task", *asked])
    found = " ".join(str(problem) for problem in problems(cell))
    assert (message in found) if message else not found
