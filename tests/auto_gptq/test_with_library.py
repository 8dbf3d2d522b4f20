"""The real auto_gptq in its own interpreter: `make test-auto-gptq` sets AUTO_GPTQ_PYTHON to it."""

from __future__ import annotations

import os
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tiny
import torch
from harness_plugins.quantizer import _external_gptq as external
from harness_plugins.quantizer import _gptq
from harness_plugins.quantizer._gptq import gptq_codes
from harness_plugins.quantizer._gptq_format import GPTQFormatLinear
from harness_plugins.quantizer._grid import Grid
from torch import Tensor

from harness import Calibration, IncompatibleError
from harness.ops.moments import output_error

PYTHON = os.environ.get("AUTO_GPTQ_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="`make test-auto-gptq` gives the interpreter")
DRIVER = Path(__file__).with_name("on_cpu.py")
CASES = [
    {"bits": b, "group_size": g, "symmetric": s, "act_order": a, "static_groups": a and g != -1}
    for b, g, s, a in product((2, 3, 4, 8), (-1, 32), (True, False), (False, True))
]


def layer_data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(96, 96, generator=generator) / 96**0.5
    x = torch.randn(512, 96, generator=generator) @ mixing + 0.3 * torch.randn(96, generator=generator)
    return torch.randn(64, 96, generator=generator), x


@pytest.fixture(scope="module")
def by_library(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What the library made of one layer under each of the options."""
    directory = tmp_path_factory.mktemp("layers")
    weight, x = layer_data()
    torch.save([(weight, x, {**case, "damping": 0.01}) for case in CASES], directory / "in.pt")
    command = [PYTHON, str(DRIVER), "layer", str(directory / "in.pt"), str(directory / "out.pt")]
    subprocess.run(command, check=True, capture_output=True)
    found: list[dict[str, Tensor]] = torch.load(directory / "out.pt")
    return found


def library_grid(weight: Tensor, config: Any) -> Grid:
    """The library's symmetric grid: 2^b - 1 steps over the range, where ours keeps zero in its middle."""
    largest = weight.unflatten(-1, (config.groups(weight.shape[-1]), -1)).abs().amax(-1)
    scale = 2 * largest / (2**config.bits - 1)
    return Grid(scale=scale, zero=torch.full_like(scale, 2 ** (config.bits - 1)), bits=config.bits)


@pytest.mark.parametrize("index", range(len(CASES)), ids=str)
def test_our_gptq_is_that_of_the_library(
    index: int, by_library: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, theirs = CASES[index], by_library[index]
    if case["symmetric"]:
        monkeypatch.setattr(_gptq, "make_grid", library_grid)
    group = case["group_size"]
    config = tiny.choose(
        "quantizer",
        "gptq",
        bits=case["bits"],
        symmetric=case["symmetric"],
        granularity="channel" if group == -1 else "group",
        group_size=32,
        scale_dtype="float32",
    ).config
    weight, x = layer_data()
    hessian = x.double().T @ x.double()
    codes, grid = gptq_codes(
        weight, hessian, config, damping=0.01, block_size=128, act_order=case["act_order"]
    )
    different = ((grid.values(codes) - theirs["values"]).abs() > 1e-4).float().mean()
    assert different < 0.02, f"{float(different):.2%} of the weights differ"
    errors = (
        output_error(hessian, weight, grid.values(codes)),
        output_error(hessian, weight, theirs["values"]),
    )
    assert errors[0] == pytest.approx(errors[1], rel=0.02)


@pytest.mark.parametrize("index", range(len(CASES)), ids=str)
def test_its_packed_tensors_mean_what_it_computes(index: int, by_library: list[dict[str, Tensor]]) -> None:
    case, theirs = CASES[index], by_library[index]
    group = 96 if case["group_size"] == -1 else case["group_size"]
    layer = GPTQFormatLinear(96, 64, None, bits=case["bits"], group_size=group)
    for name in ("qweight", "qzeros", "g_idx"):
        getattr(layer, name).copy_(theirs[name])
    layer.scales = theirs["scales"]
    _, x = layer_data()
    assert torch.allclose(x[:5] @ layer.dequantize().T, theirs["product"], atol=1e-4)


@pytest.mark.parametrize("options", [{"group_size": 32}, {"group_size": None, "bits": 8, "symmetric": False}])
def test_a_whole_model_goes_out_and_comes_back(options: dict[str, Any], monkeypatch: Any) -> None:
    def on_cpu(python: str, script: Path, *arguments: str) -> None:
        command = [python, str(DRIVER), "model", str(script), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert not done.returncode, done.stderr[-3000:]

    monkeypatch.setattr(external, "call", on_cpu)
    monkeypatch.setattr(external.ExternalGPTQ, "unavailable", classmethod(lambda cls, config: None))
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(3, tiny.VOCABULARY, (16, 64), generator=generator)
    method = tiny.choose("quantizer", "auto_gptq", python=PYTHON, **options).build()
    model = method.quantize(tiny.llama(), Calibration(batches_BT=[rows], sha256=""))
    assert method.facts["library"] == "auto_gptq 0.7.1"
    layers = {n: m for n, m in model.named_modules() if isinstance(m, GPTQFormatLinear)}
    assert len(layers) == 14
    for name, layer in layers.items():
        stated = method.bits_per_weight(layer.in_features, layer.out_features)
        assert layer.stored_bits() / layer.num_weights() == pytest.approx(stated, rel=0.01), name
    ids = torch.randint(3, tiny.VOCABULARY, (4, 32), generator=generator)
    with torch.no_grad():
        full, packed = tiny.llama()(input_ids=ids).logits, model(input_ids=ids).logits
        rounding = tiny.choose("quantizer", "rtn", bits=options.get("bits", 4)).build()
        plain = rounding.quantize(tiny.llama(), None)(input_ids=ids).logits
    assert (packed - full).norm() < 1.5 * (plain - full).norm()


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without CUDA")
def test_without_cuda_the_plan_says_so() -> None:
    method = tiny.choose("quantizer", "auto_gptq", python=PYTHON)
    problems = list(method.method.check(method.config, None, tiny.llama()))  # type: ignore[arg-type]
    assert "auto_gptq 0.7.1 quantizes on CUDA only" in str(problems[0])
    with pytest.raises(IncompatibleError, match="CUDA only"):
        method.build().quantize(tiny.llama(), Calibration(batches_BT=[], sha256=""))


@pytest.mark.cuda
def test_it_quantizes_on_a_gpu() -> None:
    method = tiny.choose("quantizer", "auto_gptq", python=PYTHON, group_size=32)
    reason = method.method.unavailable(method.config)  # type: ignore[attr-defined]
    if reason is not None:
        pytest.skip(reason)
    rows = torch.randint(3, tiny.VOCABULARY, (16, 64), generator=torch.Generator().manual_seed(1))
    model = method.build().quantize(tiny.llama(), Calibration(batches_BT=[rows], sha256=""))
    assert sum(isinstance(m, GPTQFormatLinear) for m in model.modules()) == 14
