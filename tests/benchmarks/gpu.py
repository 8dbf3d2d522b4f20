"""What only a GPU can show, in under eight minutes; cuda.sh runs it.

MFU of a dense model in bf16 with flash attention and compiled blocks, which kernels are dispatched,
bitsandbytes' kernels, peak memory. GPTQ's kernels lie in another interpreter and are not measured here.
Each section is tried alone: one that cannot run says why, and the others go on.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import harness.model
from harness.axes import MODEL_AXES
from harness.compose import compose, publish
from harness.conformance.tiny import FakeRun, methods
from harness.registry.known import registry
from harness.training.loop import train
from harness.training.losses import language_modeling_loss
from harness.training.settings import Budget, Settings, Unit

SHAPES = {
    "1b": {"dim": 2048, "num_layers": 18, "num_heads": 16, "head_dim": 128, "ffn_dim": 5632},
    "tiny": {"dim": 64, "num_layers": 2, "num_heads": 4, "head_dim": 16, "ffn_dim": 128},
}
LENGTHS, BATCHES, STEPS = {"1b": 2048, "tiny": 64}, {"1b": 16, "tiny": 4}, {"1b": 24, "tiny": 4}
FLASH = ("flash_attention", "flash_fwd", "flash_bwd")
"""Parts of names of flash kernels, on any device."""


class RandomTokens:
    """Windows of random tokens: speed does not depend on what they say."""

    num_samples = None

    def __init__(self, length: int, vocab_size: int) -> None:
        self.length, self.vocab_size = length, vocab_size

    def next(self, size: int) -> dict[str, Tensor]:
        ids = torch.randint(self.vocab_size, (size, self.length + 1))
        return {"input_ids": ids[:, :-1], "labels_BT": ids[:, 1:].contiguous()}

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def build(shape: str, device: str, *overrides: str) -> nn.Module:
    """A model of a shape, with methods of the model axes."""
    sizes = [f"model.{name}={value}" for name, value in SHAPES[shape].items()]
    cell = compose([*sizes, f"model.max_length={LENGTHS[shape]}", *overrides])
    spec = cell.spec()
    assert spec is not None
    chosen = {axis: cell.choice(axis) for axis in MODEL_AXES}
    return harness.model.build(spec, chosen, seed=0).to(device)  # type: ignore[arg-type,no-any-return]


def training(shape: str, device: str, *, compiles: bool) -> None:
    """MFU and memory of the one loop, in bf16."""
    model = build(shape, device)
    chosen = methods(
        precision=registry().get("precision", "bf16")(),
        stabilizers=(registry().get("stabilizer", "clip_norm")(),),
    )
    with tempfile.TemporaryDirectory() as folder:
        facts = train(
            model,
            RandomTokens(LENGTHS[shape], int(model.config.vocab_size)),  # type: ignore[union-attr]
            language_modeling_loss,
            work=FakeRun(Path(folder), device=device),
            settings=Settings(
                budget=Budget(unit=Unit.steps, amount=STEPS[shape]),
                batch_size=BATCHES[shape],
                sequence_length=LENGTHS[shape],
                checkpoint_every=None,
                log_every=100,
                spike_factor=None,
                compile=compiles,
            ),
            methods=chosen,
        )
    working = facts["seconds"] - facts.get("compile_seconds", 0.0)
    show("parameters", f"{facts['trainable_parameters']:,}")
    show("tokens a second, without compilation", f"{facts['tokens'] / working:,.0f}")
    show("MFU, without compilation", f"{facts['mfu'] * facts['seconds'] / working:.1%}")
    show("of a peak of", f"{facts['peak_flops']:.3g} FLOP/s ({facts['peak_flops_source']})")
    show("peak memory", f"{facts['peak_memory'] / 2**30:.2f} GiB")
    show("compilation", f"{facts.get('compile_seconds', 0.0):.1f} s")


def dispatch(shape: str, device: str) -> None:
    """Which attention kernels run: plain causal attention, and a window through FlexAttention."""
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (device == "cuda")
    ids_BT = torch.randint(100, (2, LENGTHS[shape]), device=device)
    for title, overrides in {
        "full": (),
        "flex": (
            "attention=sliding_window",
            f"attention.window={LENGTHS[shape] // 4}",
            "attention.kernel=flex",
        ),
    }.items():
        model = build(shape, device, *overrides)
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16):
            model(input_ids=ids_BT)
            with profile(activities=activities) as found:
                model(input_ids=ids_BT)
        names = {event.key for event in found.key_averages() if is_attention(event.key)}
        show(f"attention of {title}", ", ".join(sorted(names)) or "no kernel known by name")


def is_attention(name: str) -> bool:
    """Whether a profiler's entry is an attention kernel."""
    return any(part in name.lower() for part in (*FLASH, "flex_attention", "efficient_attention"))


def quantized(shape: str, device: str) -> None:
    """bitsandbytes' linear layers against one in bf16: seconds of a product, and bytes of weights."""
    import bitsandbytes as bnb

    dim, hidden = SHAPES[shape]["dim"], SHAPES[shape]["ffn_dim"]
    x = torch.randn(16, dim, device=device, dtype=torch.bfloat16)
    made: dict[str, Callable[[], nn.Module]] = {
        "bf16": lambda: nn.Linear(dim, hidden, bias=False, dtype=torch.bfloat16),
        "nf4": lambda: bnb.nn.Linear4bit(
            dim, hidden, bias=False, compute_dtype=torch.bfloat16, quant_type="nf4"
        ),
        "int8": lambda: bnb.nn.Linear8bitLt(dim, hidden, bias=False, has_fp16_weights=False),
    }
    for title, make in made.items():
        layer = make().to(device).eval()
        with torch.no_grad():
            microseconds = 1e6 * seconds(lambda layer=layer: layer(x), device)  # type: ignore[misc]
        size = sum(p.numel() * p.element_size() for p in layer.parameters())
        show(
            f"{title} product of {tuple(x.shape)} and {dim} x {hidden}",
            f"{microseconds:,.0f} us, {size:,} bytes",
        )


def seconds(action: Callable[[], Any], device: str, *, times: int = 20) -> float:
    """Mean of some calls after a first one, the device's queue empty before and after."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    action()
    wait()
    start = time.perf_counter()
    for _ in range(times):
        action()
    wait()
    return (time.perf_counter() - start) / times


def show(name: str, value: str) -> None:
    """One line of the table."""
    print(f"  {name:<48} {value}", flush=True)


def main() -> int:
    """Run all sections; the exit status says whether all of them could."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1b")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        parser.error("no GPU is visible; a trial without one is: --shape tiny --device cpu")
    publish()
    name = torch.cuda.get_device_name() if asked.device == "cuda" else "a CPU: a trial, no measurement"
    print(f"torch {torch.__version__} on {name}")
    sections: dict[str, Callable[[], None]] = {
        "training in bf16": lambda: training(asked.shape, asked.device, compiles=False),
        "training in bf16, compiled": lambda: training(asked.shape, asked.device, compiles=True),
        "attention kernels": lambda: dispatch(asked.shape, asked.device),
        "bitsandbytes": lambda: quantized(asked.shape, asked.device),
    }
    failed = []
    for title, section in sections.items():
        print(title)
        start = time.perf_counter()
        try:
            section()
        except ImportError as error:
            show("has not run", str(error))
        except Exception:
            failed.append(title)
            traceback.print_exc()
        show("seconds", f"{time.perf_counter() - start:.1f}")
    if failed:
        print(f"failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    raise SystemExit(main())
