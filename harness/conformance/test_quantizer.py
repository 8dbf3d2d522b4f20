"""What every quantizer must do."""

from __future__ import annotations

import math
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.axes.quantizer import Quantizer
from harness.conformance.causal import causal_model, logits, tokens
from harness.errors import EffectError, HarnessError
from harness.ops.calibration import Calibration
from harness.ops.packed_linear import PackedLinear, linear_layers

AXIS = "quantizer"
DIM = 64
"""Divides by the usual group sizes."""
BEST = {
    1: 1.0,
    2: 0.3634,
    3: 0.1902,
    4: 0.1175,
    5: 0.07994,
    6: 0.05798,
    8: 0.03454,
    16: 0.009497,
    32: 0.002499,
}
"""Least squared error of normal weights, relative to their own square, by the number of levels.

Paper: Max 1960, doi:10.1109/TIT.1960.1057548, table I
"""
USED = 2 / 3
"""Share of its bits that a quantizer must turn into close weights; it may spend the others on scales, and on
outputs that are closer than weights (GPTQ uses 0.8 of its bits, bitsandbytes' fp4 0.85)."""


def base() -> Any:
    return causal_model(dim=DIM)


def calibration() -> Calibration:
    batches = [tokens(seed, batch=4, length=48) for seed in range(3)]
    return Calibration(batches_BT=batches[:2], held_out_BT=batches[2:], sha256="")


def quantized(method: type[Quantizer], model: Any = None) -> tuple[Quantizer, Any]:
    chosen, model = method(), base() if model is None else model
    return chosen, chosen.quantize(model, calibration() if method.needs_calibration else None)


def packed(model: nn.Module) -> dict[str, PackedLinear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}


def least_error(bits: float) -> float:
    """Of the best scalar quantizer with 2^bits levels: linear in the logarithms between those of BEST, and
    beyond them falling with the square of the levels."""
    levels, known = 2.0**bits, sorted(BEST)
    if levels >= known[-1]:
        return float(BEST[known[-1]] * (known[-1] / levels) ** 2)
    left = max(count for count in known if count <= levels)
    right = known[known.index(left) + 1]
    slope = math.log(BEST[right] / BEST[left]) / math.log(right / left)
    return float(BEST[left] * (levels / left) ** slope)


def refuses(method: type[Quantizer]) -> bool:
    """Whether the library cannot run here; then quantizing must say why, not do something else."""
    reason = method.unavailable(method.Config())
    if reason is None:
        return False
    with pytest.raises(HarnessError) as error:
        quantized(method)
    assert reason in str(error.value), "the refusal does not say why it is unavailable"
    return True


def test_every_linear_layer_is_packed_and_nothing_else_changes(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    _, model = quantized(method)
    assert set(packed(model)) == set(linear_layers(base())), (
        "pack every linear layer but the head: see `swap`"
    )
    reference = dict(base().named_parameters())
    for name, parameter in model.named_parameters():
        if name in reference:
            assert torch.equal(parameter, reference[name]), f"{name} changed"


def test_it_stores_the_bits_it_states(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    chosen, model = quantized(method)
    for name, layer in packed(model).items():
        formula = chosen.bits_per_weight(layer.in_features, layer.out_features)
        stored = layer.stored_bits() / layer.num_weights()
        assert stored == pytest.approx(formula, rel=0.01), (
            f"{name} stores {stored:.3f} bits a weight, and bits_per_weight states {formula:.3f}"
        )
    assert formula < 16, "fewer bits than half precision"


def test_the_file_is_as_large_as_the_formula_says(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    from safetensors.torch import load_file, save_file

    chosen, model = quantized(method)
    prefixes = tuple(f"{name}." for name in packed(model))
    tensors = {
        n: t.contiguous()
        for n, t in model.state_dict().items()
        if n.startswith(prefixes) and not n.endswith("bias")
    }
    with TemporaryDirectory() as directory:
        file = Path(directory) / "packed.safetensors"
        save_file(tensors, file)
        header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
        bits = 8 * (file.stat().st_size - header)
        assert set(load_file(file)) == set(tensors), (
            "the packed tensors do not survive the file: register them as buffers"
        )
    formula = sum(
        layer.num_weights() * chosen.bits_per_weight(layer.in_features, layer.out_features)
        for layer in packed(model).values()
    )
    assert bits == pytest.approx(formula, rel=0.01), (
        f"the file takes {bits} bits, and bits_per_weight states {formula:.0f}"
    )


def test_a_stored_model_comes_back_bit_for_bit(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    chosen, model = quantized(method)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    again = type(chosen)(chosen.config).empty(base())
    again.load_state_dict(state, assign=True)
    again.tie_weights()  # type: ignore[operator]
    assert torch.equal(logits(model, tokens()), logits(again, tokens())), (
        "a stored model comes back with other logits: all that `dequantize` reads must be in the state dict"
    )


def test_it_is_deterministic(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    first, second = quantized(method)[1].state_dict(), quantized(method)[1].state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first), (
        "two runs store other codes: round the same way each time"
    )


def test_the_weights_are_as_close_as_its_bits_allow(method: type[Quantizer]) -> None:
    """As close as those of the best scalar quantizer with two thirds of the bits that it states."""
    if refuses(method):
        return
    chosen, model = quantized(method)
    for name, layer in packed(model).items():
        weight: Tensor = base().get_submodule(name).weight.detach()
        similarity = torch.cosine_similarity(layer.dequantize().flatten(), weight.flatten(), dim=0)
        error = 1 - float(similarity) ** 2 if similarity > 0 else 1.0
        bits = chosen.bits_per_weight(layer.in_features, layer.out_features)
        limit = least_error(USED * bits)
        assert error < limit, (
            f"{name}: dequantize() loses {error:.1%} of the weight's square, and {bits:.2f} bits a weight "
            f"allow {limit:.1%}; a scale, a zero or the order of the codes is wrong, or bits_per_weight is"
        )


def test_the_forward_pass_uses_the_stored_weight(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    _, model = quantized(method)
    x = torch.randn(8, DIM, generator=torch.Generator().manual_seed(3))
    layer = next(layer for layer in packed(model).values() if layer.in_features == DIM)
    expected = x @ layer.dequantize().T
    with torch.no_grad():
        error = (layer(x) - expected).norm() / expected.norm()
    assert error < (0.03 if method.quantizes_activations else 1e-5), f"relative error {error:.4f}"


def test_a_layer_keeps_its_bias(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    biased = causal_model(dim=DIM, layers=1, bias=True)
    expected = {name: layer.bias.detach().clone() for name, layer in linear_layers(biased).items()}  # type: ignore[union-attr,operator]
    for name, layer in packed(quantized(method, biased)[1]).items():
        with torch.no_grad():
            found = layer(torch.zeros(1, layer.in_features))[0]
        torch.testing.assert_close(
            found,
            expected[name],
            rtol=0.01,
            atol=1e-3,
            msg=f"{name} gives another output than its bias for an input of zeros: pass `bias` on",
        )


def test_gradients_pass_through_to_what_lies_below(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    _, model = quantized(method)
    for name, layer in packed(model).items():
        x = torch.randn(8, layer.in_features, generator=torch.Generator().manual_seed(3), requires_grad=True)
        layer(x).sum().backward()
        assert x.grad is not None, f"{name} cuts the gradient"
        expected = layer.dequantize().sum(0).expand_as(x)
        assert (x.grad - expected).norm() < 0.05 * expected.norm(), f"{name} has a wrong gradient"


def test_a_model_without_linear_layers_is_refused(method: type[Quantizer]) -> None:
    if refuses(method):
        return
    with pytest.raises(EffectError, match="no unpacked linear layer"):
        method().quantize(nn.Sequential(nn.Embedding(4, 4)), calibration())
