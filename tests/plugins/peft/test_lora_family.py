"""The methods and options of peft's LoRA family against the library's models and their papers' formulas."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import tiny_models as tiny
import torch
from torch import Tensor, nn

from harness import ConfigError, EffectError, IncompatibleError
from harness.conformance.causal import causal_model, logits, packed, tokens
from harness.conformance.test_peft import train_a_little

BLOCK = 8
"""Divides the widths of the tiny model."""


def ours(name: str, model: Any = None, **options: Any) -> tuple[Any, Any]:
    method = tiny.choose("peft", name, **options).build()
    method.before_packing = causal_model
    torch.manual_seed(1)
    return method, method.apply((causal_model() if model is None else model).requires_grad_(False))


def theirs(kind: str, model: Any = None, **options: Any) -> Any:
    """The peft library's own model, on the layers that we adapt when none is named."""
    options.setdefault("target_modules", "all-linear")
    torch.manual_seed(1)
    config = getattr(peft, f"{kind}Config")(task_type="CAUSAL_LM", **options)
    return peft.get_peft_model(causal_model() if model is None else model, config)


def biased() -> Any:
    """A Llama whose attention has biases."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(**tiny.SIZES, attention_bias=True, bos_token_id=1, eos_token_id=2)
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.15)
    return model


def trained(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}


PAIRS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("lora", {"rank": 4}, "Lora", {"r": 4, "lora_alpha": 16}),
    ("rslora", {"rank": 4}, "Lora", {"r": 4, "lora_alpha": 16, "use_rslora": True}),
    ("pissa", {"rank": 4}, "Lora", {"r": 4, "lora_alpha": 16, "init_lora_weights": "pissa"}),
    ("vera", {"rank": 16}, "Vera", {"r": 16}),
    ("oft", {"block_size": BLOCK}, "OFT", {"oft_block_size": BLOCK, "use_cayley_neumann": False}),
    (
        "oft",
        {"block_size": BLOCK, "block_share": True, "neumann_terms": 4},
        "OFT",
        {"oft_block_size": BLOCK, "block_share": True, "num_cayley_neumann_terms": 4},
    ),
    (
        "boft",
        {"block_size": 4, "butterfly_factors": 3},
        "BOFT",
        {"boft_block_size": 4, "boft_n_butterfly_factor": 3},
    ),
    (
        "lora",
        {
            "rank": 4,
            "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\.[qk]_proj": 8},
            "alpha_pattern": {"o_proj": 3.0},
            "modules_to_save": ["lm_head", "norm"],
        },
        "Lora",
        {
            "r": 4,
            "lora_alpha": 16,
            "rank_pattern": {"down_proj": 2, r"layers\.1\.self_attn\.[qk]_proj": 8},
            "alpha_pattern": {"o_proj": 3.0},
            "modules_to_save": ["lm_head", "model.norm"],
        },
    ),
    (
        "dora",
        {"rank": 4, "rank_pattern": {"q_proj": 2}, "layers_to_transform": [1], "target_modules": ["q_proj"]},
        "Lora",
        {
            "r": 4,
            "lora_alpha": 16,
            "rank_pattern": {"q_proj": 2},
            "use_dora": True,
            "target_modules": ["q_proj"],
            "layers_to_transform": [1],
        },
    ),
]


@pytest.mark.parametrize(("name", "options", "kind", "same"), PAIRS)
def test_it_starts_and_trains_as_the_peft_librarys_model_does(
    name: str, options: dict[str, Any], kind: str, same: dict[str, Any]
) -> None:
    _, mine = ours(name, **options)
    other = theirs(kind, **same)
    assert set(trained(mine)) == set(trained(other))
    with torch.no_grad():  # drawn layer by layer, in an order that follows from the lists of names
        known = dict(other.named_parameters())
        for parameter_name, parameter in mine.named_parameters():
            if "lora_A" in parameter_name and name != "pissa":
                parameter.copy_(known[parameter_name])
    assert torch.allclose(logits(mine, tokens()), logits(other, tokens()), atol=1e-6)
    train_a_little(mine)
    train_a_little(other)
    for key, value in trained(mine).items():
        assert torch.allclose(value, trained(other)[key], atol=1e-5), key
    assert torch.allclose(logits(mine, tokens()), logits(other, tokens()), atol=1e-5)
    assert not torch.allclose(logits(mine, tokens()), logits(causal_model(), tokens()), atol=1e-3)


@pytest.mark.parametrize(("name", "power"), [("lora", 1.0), ("lora_plus", 1.0), ("rslora", 0.5)])
def test_the_update_is_scaled_as_the_paper_says(name: str, power: float) -> None:
    method, model = ours(name, rank=4, alpha=6.0, target_modules=["q_proj"])
    train_a_little(model)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    up, down = layer.lora_B["default"].weight.double(), layer.lora_A["default"].weight.double()
    expected = layer.base_layer.weight.double() + 6.0 / 4**power * up @ down
    merged = method.merge(model).model.layers[0].self_attn.q_proj.weight
    assert torch.allclose(merged.double(), expected, atol=1e-6)


def test_pissa_is_the_residual_plus_the_largest_singular_components(tmp_path: Path) -> None:
    method, model = ours("pissa", rank=3, alpha=7.0)
    plain = causal_model()
    assert torch.allclose(logits(model, tokens()), logits(plain, tokens()), atol=1e-5)
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    weight = plain.model.layers[1].mlp.down_proj.weight.detach().double()
    left, values, right = torch.linalg.svd(weight, full_matrices=False)
    top = (left[:, :3] * values[:3]) @ right[:3]
    assert torch.allclose(layer.base_layer.weight.double(), weight - top, atol=1e-5)
    change = layer.get_delta_weight("default").double()
    assert torch.allclose(change, top, atol=1e-5)
    train_a_little(model)
    method.save(model, tmp_path)
    # On the weights as they were, the library reads a plain LoRA of twice the rank.
    again = peft.PeftModel.from_pretrained(causal_model(), str(tmp_path))
    assert again.peft_config["default"].r == 6
    assert torch.allclose(logits(again, tokens()), logits(model, tokens()), atol=1e-5)
    with again.disable_adapter():
        assert torch.allclose(logits(again, tokens()), logits(plain, tokens()), atol=1e-6)


def test_pissa_saves_ranks_that_differ_and_what_is_trained_beside(tmp_path: Path) -> None:
    pattern: dict[str, Any] = {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3.0}}
    method, model = ours("pissa", biased(), rank=4, bias="all", modules_to_save=["lm_head"], **pattern)
    train_a_little(model)
    method.save(model, tmp_path)
    again = peft.PeftModel.from_pretrained(biased(), str(tmp_path))
    assert torch.allclose(logits(again, tokens()), logits(model, tokens()), atol=1e-5)


def test_pissa_refuses_packed_weights() -> None:
    with pytest.raises(IncompatibleError, match="these are packed; use peft=loftq"):
        ours("pissa", packed(causal_model()))


def test_loftq_starts_nearest_to_what_was_packed() -> None:
    from peft.utils.loftq_utils import _low_rank_decomposition

    _, model = ours("loftq", packed(causal_model()), rank=4, alpha=10.0)
    _, plain = ours("lora", packed(causal_model()), rank=4)
    dense = causal_model()
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    lost = dense.model.layers[0].mlp.up_proj.weight.detach() - layer.base_layer.dequantize()
    known = _low_rank_decomposition(lost, reduced_rank=4)
    assert torch.allclose(layer.get_delta_weight("default"), known["L"] @ known["R"], atol=1e-6)
    left, values, right = torch.linalg.svd(lost.double())
    best = (left[:, :4] * values[:4]) @ right[:4]  # Eckart and Young
    assert torch.allclose(layer.get_delta_weight("default").double(), best, atol=1e-6)
    expected = logits(dense, tokens())
    error, before = (float((logits(m, tokens()) - expected).square().mean()) for m in (model, plain))
    assert error < 0.8 * before, "the start repairs a part of the loss"


def test_loftq_starts_where_the_peft_librarys_repair_of_an_nf4_model_does() -> None:
    """Its formula on bitsandbytes' own codes; the library's function itself wants a GPU."""
    import bitsandbytes as bnb
    from peft.utils.loftq_utils import _low_rank_decomposition

    base = tiny.choose("quantizer", "nf4").build().quantize(causal_model(), None)
    _, model = ours("loftq", base, rank=4, alpha=4.0)
    weight = causal_model().model.layers[0].self_attn.o_proj.weight.detach()
    # In rows of a block: its kernel for a CPU unpacks narrower ones wrongly.
    codes, state = bnb.functional.quantize_4bit(weight.view(-1, 64), quant_type="nf4", blocksize=64)
    unpacked = bnb.functional.dequantize_4bit(codes, state).view_as(weight)
    known = _low_rank_decomposition(weight - unpacked, reduced_rank=4)
    layer = model.base_model.model.model.layers[0].self_attn.o_proj
    assert torch.allclose(layer.get_delta_weight("default"), known["L"] @ known["R"], atol=1e-6)


def test_loftq_refuses_weights_that_lost_nothing_or_whose_loss_nobody_knows() -> None:
    with pytest.raises(IncompatibleError, match="no weight of this model is packed"):
        ours("loftq")
    method = tiny.choose("peft", "loftq").build()
    with pytest.raises(IncompatibleError, match="nobody knows the weights from before"):
        method.apply(packed(causal_model()))


@pytest.mark.parametrize("bias", ["none", "lora_only"])
def test_lora_plus_trains_as_the_peft_librarys_optimizer_does(bias: str) -> None:
    from peft.optimizers import create_loraplus_optimizer

    method, mine = ours("lora_plus", biased(), rank=4, rate_ratio=8.0, bias=bias)
    _, other = ours("lora", biased(), rank=4, bias=bias)
    other.load_state_dict(mine.state_dict())
    mine, other = mine.double(), other.double()  # Adam magnifies the noise of tiny gradients
    rate, betas = 1e-3, (0.9, 0.95)
    known = create_loraplus_optimizer(other, torch.optim.AdamW, lr=rate, loraplus_lr_ratio=8.0, betas=betas)
    adamw = tiny.choose("optimizer", "adamw", weight_decay=0.0, beta1=0.9, beta2=0.95).build()
    adamw.rates = [method]
    own = adamw.build(mine, rate)
    for group in own.param_groups:  # as the training loop does at every step
        group["lr"] = rate * group["rate"]
    for optimizer, model in ((own, mine), (known, other)):
        for step in range(4):
            ids = tokens(step)
            out = model(input_ids=ids, use_cache=False).logits
            nn.functional.cross_entropy(out.flatten(0, 1), ids.flatten()).backward()
            optimizer.step()
            optimizer.zero_grad()
    for name, value in trained(mine).items():
        assert torch.allclose(value, trained(other)[name], atol=1e-6), name


def test_the_training_loop_gives_lora_plus_its_two_rates(tmp_path: Path) -> None:
    from harness.registry.known import registry

    shelf = tiny.Shelf(tmp_path / "shelf")
    shared = [
        *("model=pretrained", f"model.path={tiny.pretrained(tmp_path / 'hf')}", "instruction=task"),
        *("instruction.num_items=60", "instruct.budget={unit: steps, amount: 1}", "instruct.batch_size=4"),
        *("optimizer=sgd", "optimizer.weight_decay=0.0", "instruct.learning_rate=1e-2", "schedule=constant"),
    ]
    moved = {}
    for name, options in {
        "plain": ["peft=lora"],
        "faster": ["peft=lora_plus", "peft.rate_ratio=5"],
    }.items():
        out = shelf.new(name)
        registry().stage("instruct")().run(tiny.work(shelf, "instruct", out, [*shared, *options], {}))
        from safetensors.torch import load_file

        moved[name] = load_file(out.path / "adapter" / "adapter_model.safetensors")
    key = "base_model.model.model.layers.0.self_attn.v_proj.lora_B.weight"
    # B starts at zero, so after one step of gradient descent it is the rate times the gradient.
    assert float(moved["plain"][key].norm()) > 0
    ratio = moved["faster"][key].norm() / moved["plain"][key].norm()
    assert ratio == pytest.approx(5.0, rel=0.05)  # A is drawn anew


def test_vera_is_its_formula() -> None:
    method, model = ours("vera", rank=16)
    train_a_little(model)
    layer = model.base_model.model.model.layers[0].mlp.gate_proj
    shared = model.base_model
    down, up = shared.vera_A["default"].double(), shared.vera_B["default"].double()
    d, b = layer.vera_lambda_d["default"].double(), layer.vera_lambda_b["default"].double()
    assert not any("vera_A" in name or "vera_B" in name for name in trained(model))
    rows, columns = layer.base_layer.weight.shape
    change = b[:, None] * up[:rows] @ (d[:, None] * down[:, :columns])  # eq. 2
    expected = layer.base_layer.weight.double() + change
    merged = method.merge(model).model.layers[0].mlp.gate_proj.weight
    assert torch.allclose(merged.double(), expected, atol=1e-5)
    assert float(change.detach().abs().max()) > 1e-4


def test_oft_rotates_by_orthogonal_cayley_blocks() -> None:
    method, model = ours("oft", block_size=BLOCK)
    train_a_little(model)
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    parameters = layer.oft_R["default"].weight.double()
    rows, columns = torch.triu_indices(BLOCK, BLOCK, 1)
    blocks = []
    for vector in parameters:
        skew = torch.zeros(BLOCK, BLOCK, dtype=torch.float64)
        skew[rows, columns] = vector
        skew = skew - skew.T
        eye = torch.eye(BLOCK, dtype=torch.float64)
        blocks.append((eye - skew) @ torch.linalg.inv(eye + skew))
        assert torch.allclose(blocks[-1] @ blocks[-1].T, eye, atol=1e-12)
    rotation = torch.block_diag(*blocks)
    weight = layer.base_layer.weight.double()
    merged = method.merge(model).model.layers[0].self_attn.q_proj.weight.double()
    # y = W (x R)^T, so the weight is W R^T.
    assert torch.allclose(merged, weight @ rotation.T, atol=1e-5)
    assert torch.allclose(merged @ merged.T, weight @ weight.T, atol=1e-4), "angles between neurons stay"
    assert not torch.allclose(merged, weight, atol=1e-3)


@pytest.mark.parametrize(
    ("name", "only"),
    [("lora", "lora_only"), ("vera", "vera_only"), ("oft", "oft_only"), ("boft", "boft_only")],
)
@pytest.mark.parametrize("all_of_them", [True, False])
def test_biases_train_save_and_merge(name: str, only: str, all_of_them: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {"block_size": BLOCK} if name in ("oft", "boft") else {"rank": 4}
    options |= {"bias": "all" if all_of_them else only, "target_modules": ["q_proj", "up_proj"]}
    method, model = ours(name, biased(), **options)
    assert not method.reversible, "the library leaves trained biases in place when adapters are off"
    count = sum(value.numel() for value in trained(model).values())
    assert count == method.trainable_parameters(biased())
    biases = [key for key in trained(model) if key.endswith(".bias")]
    assert len(biases) == 2 * (4 if all_of_them else 1)
    train_a_little(model)
    moved = logits(model, tokens())
    method.save(model, tmp_path)
    again = method.load(biased().requires_grad_(False), tmp_path, trainable=True)
    assert torch.allclose(logits(again, tokens()), moved, atol=1e-5)
    assert set(trained(again)) == set(trained(model))
    assert torch.allclose(logits(method.merge(model), tokens()), moved, atol=2e-5)


@pytest.mark.parametrize("name", ["lora", "dora", "adalora", "ia3", "vera", "oft", "boft", "pissa", "rslora"])
def test_modules_to_save_train_whole_save_and_merge(name: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"modules_to_save": ["lm_head", "embed_tokens", "norm"]}
    options |= {"block_size": BLOCK} if name == "oft" else {}
    method, model = ours(name, **options)
    count = sum(value.numel() for value in trained(model).values())
    assert count == method.trainable_parameters(causal_model())
    train_a_little(model)
    moved = logits(model, tokens())
    with method.disabled(model):
        assert torch.allclose(logits(model, tokens()), logits(causal_model(), tokens()), atol=1e-5)
    method.save(model, tmp_path)
    again = method.load(causal_model().requires_grad_(False), tmp_path, trainable=True)
    assert torch.allclose(logits(again, tokens()), moved, atol=1e-5)
    assert set(trained(again)) == set(trained(model))
    merged = method.merge(model)
    assert torch.allclose(logits(merged, tokens()), moved, atol=2e-5)
    for end in ("model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"):
        assert not torch.equal(merged.get_parameter(end), causal_model().get_parameter(end)), end


def test_only_the_chosen_blocks_are_adapted_on_packed_weights_too() -> None:
    for model in (causal_model(), packed(causal_model())):
        _, adapted = ours("lora", model, layers_to_transform=[1])
        assert all(".layers.1." in name for name in trained(adapted))
        assert len(trained(adapted)) == 2 * 7


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rank_pattern": {"q_prj": 4}}, ConfigError, "peft.rank_pattern: q_prj matches no adapted layer"),
        ({"alpha_pattern": {"lm_head": 4}}, ConfigError, "peft.alpha_pattern: lm_head matches no adapted"),
        (
            {"rank_pattern": {".*proj": 4, "q_proj": 2}},
            ConfigError,
            "rank_pattern: q_proj matches no adapted",
        ),
        ({"rank_pattern": {"q_proj(": 4}}, ConfigError, "is no regular expression"),
        ({"rank_pattern": {"q_proj": 0}}, ConfigError, "must be at least 1"),
        ({"rank_pattern": {"q_proj": 33}}, ConfigError, "rank 33 is above the size of layer .*q_proj"),
        ({"layers_to_transform": [2]}, ConfigError, "no block 2; its blocks are 0 to 1"),
        ({"layers_to_transform": [-1]}, ConfigError, "no block -1"),
        ({"layers_to_transform": [1, 1]}, ConfigError, "names something twice"),
        (
            {"layers_to_transform": [0], "target_modules": ["q_proj", "lm_head"]},
            ConfigError,
            "lm_head lies in no block",
        ),
        ({"modules_to_save": ["lm_haed"]}, EffectError, "lm_haed matches no module"),
        ({"modules_to_save": ["rotary_emb"]}, ConfigError, "rotary_emb has no weights"),
        ({"modules_to_save": ["mlp", "up_proj"]}, ConfigError, "lies in another"),
        (
            {"modules_to_save": ["q_proj"], "target_modules": ["q_proj"]},
            ConfigError,
            "name it in one of them",
        ),
        ({"bias": "all"}, ConfigError, "the model has no biases; use peft.bias=none"),
        ({"bias": "vera_only"}, ConfigError, "must be none, all or lora_only"),
    ],
)
def test_what_matches_nothing_is_an_error(options: dict[str, Any], error: type, message: str) -> None:
    with pytest.raises((error, ConfigError), match=message):
        ours("lora", **options)


def test_modules_to_save_refuse_packed_and_shared_weights() -> None:
    with pytest.raises(IncompatibleError, match="down_proj holds packed weights"):
        ours("lora", packed(causal_model()), modules_to_save=["down_proj"])
    tied = causal_model()
    tied.lm_head.weight = tied.model.embed_tokens.weight
    with pytest.raises(IncompatibleError, match=r"modules_to_save.*shares its weight"):
        ours("lora", tied, modules_to_save=["lm_head"])


def rotation(model: Any) -> tuple[Tensor, Tensor]:
    """R and the scales of the first layer's queries, by the definition of a butterfly, in float64.

    Factor i turns inputs j and j + 2^i apart together: blocks of neighbours among those that agree in all but
    some bits, here the library's permutations of them.
    """
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    found = torch.eye(layer.in_features, dtype=torch.float64)
    for blocks, order in zip(layer.boft_R["default"].double(), layer.boft_P.double(), strict=True):
        eye = torch.eye(blocks.shape[-1], dtype=torch.float64)
        skew = (blocks - blocks.mT) / 2
        cayley = torch.stack([(eye - q) @ torch.linalg.inv(eye + q) for q in skew])
        found = order @ torch.block_diag(*cayley) @ order.T @ found
    return found, layer.boft_s["default"].double()


def test_boft_is_a_product_of_permuted_rotations() -> None:
    method, model = ours("boft", block_size=2, butterfly_factors=5)
    train_a_little(model)
    turn, scale = rotation(model)
    assert torch.allclose(turn @ turn.T, torch.eye(32, dtype=torch.float64), atol=1e-12)
    assert (turn.abs() > 1e-12).all(), "log2(32) factors of 2 x 2 blocks mix every input with every other"
    weight = model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight.double()
    merged = method.merge(model).model.layers[0].self_attn.q_proj.weight.double()
    assert torch.allclose(merged, scale * (weight @ turn.T), atol=1e-5)
    assert not torch.allclose(merged, weight, atol=1e-3)


def test_one_factor_of_boft_is_block_diagonal() -> None:
    _, model = ours("boft", block_size=BLOCK, butterfly_factors=1)
    train_a_little(model)
    turn, _ = rotation(model)
    blocks = torch.block_diag(*[torch.ones(BLOCK, BLOCK)] * 4).bool()
    assert (turn[~blocks] == 0).all()


def test_the_kernels_that_stand_in_for_pefts_extension_have_their_gradients() -> None:
    from harness_plugins.peft.boft import provide_kernels
    from peft.tuners.boft.layer import FastBlockDiag

    provide_kernels()
    blocks = torch.randn(3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    made = FastBlockDiag.apply(blocks)
    assert torch.equal(made[1], torch.block_diag(*blocks[1]))
    assert torch.autograd.gradcheck(FastBlockDiag.apply, blocks)


def test_blocks_of_a_butterfly_must_divide_every_layer() -> None:
    with pytest.raises(
        ConfigError, match=r"8 8 times must divide the 32 inputs of layer .*; use one of \[2, 4\]"
    ):
        ours("boft", block_size=8, butterfly_factors=4)


def test_blocks_of_oft_must_divide_every_layer() -> None:
    with pytest.raises(ConfigError, match=r"48 must divide the 32 inputs of layer .*; use one of \[2, 4, 8"):
        ours("oft", block_size=48)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["peft=pissa", "quantizer=nf4", "stages=[quantize,instruct]"],
            "it changes the weights that it stands",
        ),
        (["peft=loftq"], "the weights are not packed"),
        (["peft=loftq", "quantizer=nf4", "stages=[instruct,quantize]"], "the weights are not packed"),
        (
            ["peft=loftq", "quantizer=qat", "stages=[quantize,instruct]"],
            "trains the weights as it packs them",
        ),
        (["peft=loftq", "quantizer=nf4", "stages=[quantize,instruct]"], ""),
        (["peft=lora_plus", "quantizer=nf4", "stages=[quantize,instruct]"], ""),
    ],
)
def test_orders_that_cannot_work_are_refused_before_anything_runs(
    overrides: list[str], message: str, tmp_path: Path
) -> None:
    from harness.compose import compose

    path = f"model.path={tiny.pretrained(tmp_path)}"
    cell = compose(["model=pretrained", path, "instruction=task", *overrides])
    choice = cell.choice("peft", stage="instruct")
    assert choice is not None
    found = " ".join(str(problem) for problem in choice.method.check(choice.config, cell, None))
    assert (message in found) if message else not found


def test_loftq_of_a_cell_reads_the_weights_from_before_its_quantizer(tmp_path: Path) -> None:
    from harness.model.artifact import load_model
    from harness.registry.known import registry

    shelf = tiny.Shelf(tmp_path / "shelf")
    source = tiny.pretrained(tmp_path / "hf")
    shared = [
        *("model=pretrained", f"model.path={source}", "instruction=task", "quantizer=nf4"),
        *("instruction.num_items=60", "instruct.budget={unit: steps, amount: 1}", "instruct.batch_size=4"),
        *("peft=loftq", "instruct.learning_rate=1e-6", "stages=[quantize,instruct]"),
    ]
    base, out = shelf.new("base"), shelf.new("tuned")
    registry().stage("quantize")().run(tiny.work(shelf, "quantize", base, shared, {}))
    registry().stage("instruct")().run(tiny.work(shelf, "instruct", out, shared, {"model": base}))
    ids_BT = torch.arange(20)[None] + 7
    dense = logits(load_model(source, shelf.load).model, ids_BT)
    quantized = logits(load_model(base, shelf.load).model, ids_BT)
    repaired = load_model(out, shelf.load)
    assert repaired.adapter is not None
    error, before = ((each - dense).norm() for each in (logits(repaired.model, ids_BT), quantized))
    assert error < 0.9 * before
