"""GPTQ against an independent float64 implementation, and where its result is known."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer._gptq import gptq_codes
from harness_plugins.quantizer._grid import make_grid
from torch import Tensor

from harness import Calibration, ConfigError, DataError
from harness.ops.calibration import walk
from harness.ops.moments import Hessian, inverse_factor, output_error

GENERATOR = torch.Generator().manual_seed(0)


def options(**values: Any) -> Any:
    return tiny.choose("quantizer", "gptq", **values).config


def layer_data(rows: int = 256, inputs: int = 48, outputs: int = 20) -> tuple[Tensor, Tensor]:
    """A weight and correlated inputs, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    x = torch.randn(rows, inputs, generator=generator) @ mixing + torch.randn(inputs, generator=generator)
    return torch.randn(outputs, inputs, generator=generator), x


def reference(weight: Tensor, hessian: Tensor, config: Any) -> Tensor:
    """Optimal brain quantization in column order, by removing one row and column of H^-1 at a time.

    Written from the OBQ equations (Frantar and Alistarh 2022, eq. 2 and 3), with no Cholesky factor.
    """
    rest = weight.double().clone()
    h = hessian.double().clone()
    h += torch.eye(len(h)).double() * config.damping * h.diagonal().mean()
    inverse = torch.linalg.inv(h)
    size = config.group_size if config.granularity.value == "group" else weight.shape[1]
    result = torch.zeros_like(rest)
    for i in range(weight.shape[1]):
        if i % size == 0:
            group = rest[:, i : i + size].float()
            if config.granularity.value == "tensor":
                group = weight
            grid = make_grid(group, options(**_plain(config, granularity="channel")))
            scale, zero = grid.scale.double(), grid.zero.double()
        codes = (torch.round(rest[:, i : i + 1] / scale) + zero).clamp(0, 2**config.bits - 1)
        result[:, i : i + 1] = (codes - zero) * scale
        error = (rest[:, i] - result[:, i]) / inverse[0, 0]
        rest[:, i:] -= error[:, None] * inverse[0]
        inverse = (inverse - torch.outer(inverse[:, 0], inverse[0]) / inverse[0, 0])[1:, 1:]
    return result


def _plain(config: Any, **changes: Any) -> dict[str, Any]:
    names = ("bits", "symmetric", "damping", "group_size")
    return {name: getattr(config, name) for name in names} | changes


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("granularity", ["channel", "group"])
@pytest.mark.parametrize("symmetric", [True, False])
def test_it_equals_an_independent_implementation(bits: int, granularity: str, symmetric: bool) -> None:
    config = options(bits=bits, granularity=granularity, group_size=16, symmetric=symmetric)
    weight, x = layer_data()
    hessian = x.double().T @ x.double()
    codes, grid = gptq_codes(weight, hessian, config, damping=0.01, block_size=32, act_order=False)
    expected = reference(weight, hessian, config)
    got = grid.values(codes).double()
    step = grid.scale.repeat_interleave(weight.shape[1] // grid.scale.shape[1], dim=1)
    different = ((got - expected).abs() > 0.01 * step).double().mean()
    assert different < 0.01, f"{float(different):.3%} of the codes differ"
    errors = output_error(hessian, weight, got.float()), output_error(hessian, weight, expected.float())
    assert errors[0] == pytest.approx(errors[1], rel=0.01)


@pytest.mark.parametrize("act_order", [False, True])
@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
def test_a_diagonal_hessian_gives_plain_rounding_bit_for_bit(act_order: bool, granularity: str) -> None:
    config = options(bits=4, granularity=granularity, group_size=16)
    weight, _ = layer_data()
    hessian = torch.diag(torch.rand(48, generator=GENERATOR).double() + 0.1)
    codes, grid = gptq_codes(weight, hessian, config, damping=0.0, block_size=16, act_order=act_order)
    plain = make_grid(weight, config)
    assert torch.equal(codes, plain.codes(weight))
    assert torch.equal(grid.scale, plain.scale)


def test_the_block_size_does_not_matter() -> None:
    weight, x = layer_data()
    hessian = x.double().T @ x.double()
    found = [
        gptq_codes(weight, hessian, options(), damping=0.01, block_size=size, act_order=False)[0]
        for size in (1, 16, 48, 128)
    ]
    assert all((codes != found[0]).double().mean() < 0.005 for codes in found)


def test_the_factor_is_that_of_the_damped_inverse() -> None:
    _, x = layer_data()
    hessian = x.double().T @ x.double()
    factor = inverse_factor(hessian, 0.02)
    damped = hessian + 0.02 * hessian.diagonal().mean() * torch.eye(48).double()
    assert torch.allclose(factor.T @ factor @ damped, torch.eye(48).double(), atol=1e-9)
    assert torch.equal(factor, factor.triu())


def test_the_hessian_sums_over_batches() -> None:
    _, x = layer_data()
    whole, parts = Hessian(48, x.device), Hessian(48, x.device)
    whole.add(x)
    for part in x.split(50):
        parts.add(part)
    assert parts.rows == whole.rows == 256
    exact, magnitude = x.double().T @ x.double(), x.double().abs().T @ x.double().abs()
    for found in (whole.sum, parts.sum):  # float32 products of 256 rows, summed in any order
        assert ((found - exact).abs() <= 256 * 2**-24 * magnitude).all()


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_layer_errors_never_exceed_rounding(bits: int) -> None:
    batches = [torch.randint(3, tiny.VOCABULARY, (4, 64), generator=GENERATOR) for _ in range(4)]
    calibration = Calibration(batches_BT=batches[:3], held_out_BT=batches[3:], sha256="")
    method = tiny.choose("quantizer", "gptq", bits=bits).build()
    method.quantize(tiny.llama(), calibration)
    facts = method.facts
    rounded = 0
    for name, errors in facts["layer_errors"].items():
        better = "gptq" if errors["held_out_gptq"] <= errors["held_out_rtn"] else "rtn"
        assert errors["held_out_stored"] == errors[f"held_out_{better}"], name
        assert errors["stored"] == errors[better], name
        rounded += better == "rtn"
    assert facts["layers_kept_rounded"] == rounded
    assert facts["error_gptq"] < 0.8 * facts["error_rtn"], "compensation helps by more than a fifth"
    assert facts["error_held_out_gptq"] < facts["error_held_out_rtn"]


def test_the_stated_error_is_that_of_the_stored_layer() -> None:
    batches = [torch.randint(3, tiny.VOCABULARY, (4, 64), generator=GENERATOR) for _ in range(2)]
    method = tiny.choose("quantizer", "gptq", bits=3).build()
    model = method.quantize(tiny.llama(), Calibration(batches_BT=batches, sha256=""))
    name, seen, full = "model.layers.0.self_attn.q_proj", [], tiny.llama()
    layer = full.get_submodule(name)
    layer.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].detach()))
    with torch.no_grad():
        for ids in batches:
            full(input_ids=ids)
        x = torch.cat(seen).flatten(0, -2).double()
        exact = x @ layer.weight.double().T
        error = (x @ model.get_submodule(name).dequantize().double().T - exact).square().sum()
    stated = method.facts["layer_errors"][name]["stored"]
    assert stated == pytest.approx(float(error / exact.square().sum()), rel=1e-4)


@pytest.mark.parametrize("bits", [2, 4])
def test_act_order_is_the_independent_implementation_on_sorted_inputs(bits: int) -> None:
    config = options(bits=bits, granularity="channel", symmetric=False)
    weight, x = layer_data()
    hessian = x.double().T @ x.double()
    codes, grid = gptq_codes(weight, hessian, config, damping=0.01, block_size=16, act_order=True)
    order = hessian.diagonal().argsort(descending=True)
    expected = torch.empty_like(weight, dtype=torch.float64)
    expected[:, order] = reference(weight[:, order], hessian[order][:, order], config)
    different = ((grid.values(codes).double() - expected).abs() > 0.01 * grid.scale).double().mean()
    assert different < 0.01, f"{float(different):.3%} of the codes differ"


def test_too_little_calibration_is_refused() -> None:
    calibration = Calibration(batches_BT=[torch.arange(3, 20)[None]], sha256="")
    with pytest.raises(ConfigError, match="17 tokens for a layer with 32 inputs"):
        tiny.choose("quantizer", "gptq").build().quantize(tiny.llama(), calibration)


def test_twice_as_many_tokens_as_inputs_are_wanted_by_plan_and_method() -> None:
    method = tiny.choose("quantizer", "gptq").build()
    assert method.calibration_tokens(1536) == 2 * 1536


def test_rounding_is_kept_where_held_out_inputs_say_so() -> None:
    weight, x = layer_data()
    generator = torch.Generator().manual_seed(1)
    other = torch.randn(4000, 48, generator=generator) @ torch.linalg.inv(x.T @ x + torch.eye(48)) * 100
    layer = torch.nn.Linear(48, 20, bias=False)
    layer.weight.data = weight
    seen, held_out = Hessian(48, x.device), Hessian(48, x.device)
    seen.add(x)
    held_out.add(other)  # inputs that lie where the calibration's do not
    packed, errors = tiny.choose("quantizer", "gptq", bits=3).build().pack(layer, seen, held_out)
    assert errors["gptq"] < errors["rtn"], "on what it was fitted to it looks better"
    assert errors["held_out_gptq"] > errors["held_out_rtn"]
    assert errors["held_out_stored"] == errors["held_out_rtn"]
    plain = tiny.choose("quantizer", "rtn", bits=3).build().round(layer)
    assert torch.equal(packed.dequantize(), plain.dequantize())


@pytest.mark.parametrize("name", ["gptq", "awq", "smoothquant"])
def test_calibration_inputs_that_are_not_finite_are_named(name: str) -> None:
    model = tiny.llama()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight[3, 5] = float("nan")
    rows = torch.randint(3, tiny.VOCABULARY, (4, 64), generator=GENERATOR)
    with pytest.raises(
        DataError, match=r"layers\.1\.self_attn\.\w_proj reads \d+ calibration inputs that are"
    ):
        tiny.choose("quantizer", name).build().quantize(model, Calibration(batches_BT=[rows], sha256=""))


@pytest.mark.parametrize("name", ["gptq", "awq", "smoothquant"])
def test_a_layer_whose_weight_is_read_past_it_is_named(name: str) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    model = MambaForCausalLM(MambaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=1, state_size=8))
    calibration = Calibration(batches_BT=[torch.arange(256).view(4, 64) % 64], sha256="")
    method = tiny.choose("quantizer", name).build()
    with pytest.raises(ConfigError, match="dt_proj is never called: MambaMixer reads its weight"):
        method.quantize(model, calibration)


def test_layers_of_a_block_are_packed_in_turn() -> None:
    order: list[list[str]] = []
    model = tiny.llama(layers=1)
    rows = torch.randint(3, tiny.VOCABULARY, (4, 64), generator=GENERATOR)
    walk(
        model, [rows], lambda name, x, number: None, lambda names: order.append(list(names)), sequential=True
    )
    leaves = [sorted(name.rpartition(".")[2] for name in names) for names in order[:4]]
    assert leaves == [["k_proj", "q_proj", "v_proj"], ["o_proj"], ["gate_proj", "up_proj"], ["down_proj"]]


def test_a_layer_is_fitted_to_what_the_packed_ones_before_it_give() -> None:
    rows = torch.randint(3, tiny.VOCABULARY, (8, 64), generator=torch.Generator().manual_seed(0))
    calibration = Calibration(batches_BT=[rows], sha256="")
    method = tiny.choose("quantizer", "gptq", bits=3).build()
    model = method.quantize(tiny.llama(layers=1), calibration)
    name, seen, full = "model.layers.0.mlp.down_proj", [], tiny.llama(layers=1)
    weight = full.get_submodule(name).weight.double()
    model.get_submodule(name).register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        model(input_ids=rows)
    x = seen[0].flatten(0, -2).double()
    error = ((weight - model.get_submodule(name).dequantize().double()) @ x.T).square().sum()
    stated = method.facts["layer_errors"][name]["stored"]
    assert stated == pytest.approx(float(error / (weight @ x.T).square().sum()), rel=1e-3)
