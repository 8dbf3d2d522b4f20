"""Quantization-aware training: the straight-through gradient, data that the model writes, and the gain."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import composed
import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer._straight_through import StraightThrough
from torch import nn

from harness import ConfigError, PackedLinear
from harness.model.artifact import load_model, load_pretrained
from harness.registry.known import registry
from harness.stages._quantization_training import RowSource, distillation_loss

FAST = ["quantizer=qat", "quantizer.num_sequences=24", "quantize.sequence_length=24", "quantize.log_every=10"]


def options(**values: Any) -> Any:
    return tiny.choose("quantizer", "qat", **values).config


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_rounding_and_its_gradient_are_those_of_torch(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    layer = nn.Linear(24, 6, bias=False)
    layer.weight.data = torch.randn(6, 24, generator=generator)
    ours = StraightThrough(layer, options(bits=bits, scale_dtype="float32"))
    scale = 2 * layer.weight.detach().abs().amax(1) / (2**bits - 1)
    expected = torch.fake_quantize_per_channel_affine(
        layer.weight, scale, torch.zeros(6, dtype=torch.int32), 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    )
    # The largest weight of a row lies exactly between two codes, or between a code and none.
    inside = layer.weight.abs() < layer.weight.abs().amax(1, keepdim=True)
    assert torch.allclose(ours(layer.weight)[inside], expected[inside], atol=1e-6)
    assert ((ours(layer.weight) - layer.weight).abs() <= 0.5001 * scale[:, None]).all()
    upstream = torch.randn(6, 24, generator=generator)
    (got,) = torch.autograd.grad(ours(layer.weight), layer.weight, upstream)
    (want,) = torch.autograd.grad(expected, layer.weight, upstream)
    assert torch.equal(got[inside], want[inside])
    assert torch.equal(got, upstream)


def test_gpt2_conv1d_layers_are_rounded_by_output() -> None:
    from transformers.pytorch_utils import Conv1D

    layer = Conv1D(6, 24)
    rounded = StraightThrough(layer, options(bits=2))(layer.weight)
    assert all(len(column.unique()) <= 4 for column in rounded.T)


def test_what_is_packed_is_what_it_computed_while_training() -> None:
    ids = torch.arange(5, 25)[None]
    method = tiny.choose("quantizer", "qat", bits=3).build()
    model = method.prepare(tiny.llama())
    with torch.no_grad():
        trained = model(input_ids=ids).logits
        packed = method.quantize(model, None)(input_ids=ids).logits
    assert torch.allclose(trained, packed, atol=1e-6)
    assert all(not hasattr(m, "parametrizations") for m in model.modules())


def test_the_model_writes_a_random_start_then_its_likeliest_then_samples() -> None:
    model, generator = tiny.llama(), torch.Generator().manual_seed(3)
    method = tiny.choose("quantizer", "qat", num_sequences=200, greedy_tokens=4).build()
    ids_NT = method.sequences(model, length=8, generator=generator)
    assert ids_NT.shape == (200, 8)
    assert len(ids_NT[:, 0].unique()) > 50
    with torch.no_grad():
        likeliest = model(input_ids=ids_NT).logits.argmax(-1)
    assert torch.equal(ids_NT[:, 1:5], likeliest[:, :4])
    assert (ids_NT[:, 5:] != likeliest[:, 4:-1]).any()
    again = method.sequences(model, length=8, generator=torch.Generator().manual_seed(3))
    assert torch.equal(ids_NT, again)


def test_a_model_with_an_encoder_writes_and_learns_with_a_source() -> None:
    """Halves of a sequence: what follows the first half is the likeliest that the model reads of it."""
    model = composed.tiny(architecture="encoder_decoder", shape={"num_encoder_layers": 2})
    method = tiny.choose("quantizer", "qat", num_sequences=5, greedy_tokens=9).build()
    ids_NT = method.sequences(model, length=9, generator=torch.Generator().manual_seed(3))
    source, target = ids_NT[:, :4], ids_NT[:, 4:]
    with torch.no_grad():
        read = model(input_ids=target, encoder_input_ids=source).logits
        assert torch.equal(target[:, 1:], read[:, :-1].argmax(-1))
        batch = RowSource(ids_NT.numpy(), seed=0, model=model).next(5)
        assert torch.equal(batch["labels_BT"][:, :-1], batch["input_ids"][:, 1:])
        found = distillation_loss(method, None)(model, batch).total
        expected = model(batch["input_ids"], encoder_input_ids=batch["encoder_input_ids"]).logits
    expected = nn.functional.cross_entropy(
        expected[:, :-1].flatten(0, 1), batch["input_ids"][:, 1:].flatten(), reduction="sum"
    )
    assert torch.allclose(found, expected)


def test_samples_follow_the_distribution_of_the_model() -> None:
    model = tiny.llama()
    with torch.no_grad():  # a sharp model, whose second token hardly depends on its first
        model.lm_head.weight.mul_(0)
        model.lm_head.weight[7:10] = model.model.norm.weight * 0.01
    method = tiny.choose("quantizer", "qat", num_sequences=4000, greedy_tokens=0).build()
    ids_NT = method.sequences(model, length=2, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(input_ids=ids_NT[:, :1]).logits[:, 0].softmax(-1).mean(0)
    found = torch.bincount(ids_NT[:, 1], minlength=tiny.VOCABULARY) / len(ids_NT)
    assert (found - expected).abs().max() < 0.01


def test_distillation_is_cross_entropy_with_the_teachers_distribution() -> None:
    logits, teacher = torch.randn(5, 9), torch.randn(5, 9)
    method = tiny.choose("quantizer", "qat").build()
    expected = -(teacher.softmax(-1) * logits.log_softmax(-1)).sum()
    assert torch.allclose(method.token_loss(logits, teacher, torch.zeros(5, dtype=torch.long)), expected)


def run(root: Path, *overrides: str) -> tuple[dict[str, Any], nn.Module, tiny.Shelf]:
    """The quantize stage on a pretrained directory, with neither tokens nor documents."""
    shelf = tiny.Shelf(root / "shelf")
    directory = tiny.pretrained(root / "hf")
    everything = ["model=pretrained", f"model.path={directory}", *overrides]
    out = shelf.new("quantized")
    facts = registry().stage("quantize")().run(tiny.work(shelf, "quantize", out, everything, {}))
    return facts, load_model(out, shelf.load).model, shelf  # type: ignore[arg-type]


def divergence(model: nn.Module, directory: Path) -> float:
    """Mean cross-entropy with the full model's distribution on fresh tokens, less its entropy; nats."""
    ids = torch.randint(3, tiny.VOCABULARY, (16, 24), generator=torch.Generator().manual_seed(11))
    with torch.no_grad():
        full = load_pretrained(str(directory)).model(input_ids=ids).logits.log_softmax(-1)
        found = model(input_ids=ids).logits.log_softmax(-1)
    return float((full.exp() * (full - found)).sum(-1).mean())


def test_training_without_data_brings_two_bits_closer_to_the_full_model(tmp_path: Path) -> None:
    plain = run(tmp_path / "rtn", "quantizer=rtn", "quantizer.bits=2", "quantizer.symmetric=true")
    facts, model, _ = run(
        tmp_path / "qat",
        *FAST,
        "quantizer.bits=2",
        "quantize.learning_rate=3e-3",
        "quantize.budget={unit: steps, amount: 60}",
    )
    assert facts["training"]["steps"] == 60
    assert facts["training"]["sequences"] == 24
    assert len(facts["training"]["data_sha256"]) == 64
    assert facts["bits_per_weight"] == pytest.approx(plain[0]["bits_per_weight"])
    assert sum(isinstance(m, PackedLinear) for m in model.modules()) == facts["packed_layers"]
    rounded = divergence(plain[1], tmp_path / "rtn" / "hf")
    assert divergence(model, tmp_path / "qat" / "hf") < 0.7 * rounded


def test_options_that_cannot_be_are_refused() -> None:
    with pytest.raises(ConfigError, match="num_sequences=0"):
        options(num_sequences=0)
    with pytest.raises(ConfigError, match="greedy_tokens=-1"):
        options(greedy_tokens=-1)
