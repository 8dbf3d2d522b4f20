"""Cross-entropy in chunks and heads on learned positions alone, against torch on all logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

from harness.conformance.tiny import methods, run
from harness.data.template import IGNORED
from harness.ops import cross_entropy
from harness.ops.cross_entropy import cross_entropy_sum
from harness.registry.known import registry
from harness.training import gradients, losses
from harness.training.contract import Batch, LossSum
from harness.training.gradients import Gradients
from harness.training.loop import Trainer
from harness.training.losses import language_modeling_loss

VOCAB = 61


def both(logits_MV: Tensor, labels_M: Tensor, factor: float) -> tuple[tuple[Tensor, Tensor], ...]:
    """(loss, gradient) of ours and of torch's on the same logits in double precision."""
    found = []
    for ours in (True, False):
        x_MV = logits_MV.clone() if ours else logits_MV.double()
        x_MV.requires_grad_()
        if ours:
            loss = cross_entropy_sum(x_MV, labels_M, ignored=IGNORED)
        else:
            loss = F.cross_entropy(x_MV, labels_M, ignore_index=IGNORED, reduction="sum")
        (loss * factor).backward()  # type: ignore[no-untyped-call]
        assert x_MV.grad is not None
        found.append((loss.detach(), x_MV.grad))
    return tuple(found)


def rows(num: int, dtype: torch.dtype, *, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    torch.manual_seed(num)
    labels_M = torch.randint(VOCAB, (num,))
    labels_M[::3] = IGNORED
    return (scale * torch.randn(num, VOCAB)).to(dtype), labels_M


@pytest.mark.parametrize("num", [0, 1, 7, 8, 9, 100])
def test_it_is_torchs_cross_entropy_in_double_precision(monkeypatch: pytest.MonkeyPatch, num: int) -> None:
    monkeypatch.setitem(cross_entropy.CHUNK_BYTES, "cpu", 1)  # eight rows at once
    (loss, gradient), (exact_loss, exact) = both(*rows(num, torch.float64), factor=0.37)
    torch.testing.assert_close(loss, exact_loss, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(gradient, exact, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_as_near_as_torchs_on_logits_in_single_precision(dtype: torch.dtype) -> None:
    logits_MV, labels_M = rows(300, dtype)
    (loss, gradient), (exact_loss, exact) = both(logits_MV, labels_M, factor=0.37)
    plain_MV = logits_MV.clone().requires_grad_()
    plain = F.cross_entropy(plain_MV.float(), labels_M, ignore_index=IGNORED, reduction="sum")
    (plain * 0.37).backward()  # type: ignore[no-untyped-call]
    assert plain_MV.grad is not None
    assert loss.dtype == torch.float32
    assert gradient.dtype == dtype
    assert (loss - exact_loss).abs() <= 2 * (plain - exact_loss).abs() + 1e-6 * exact_loss
    assert (gradient - exact).abs().max() <= 2 * (plain_MV.grad - exact).abs().max()


def test_logits_that_overflow_an_exponential_and_minus_infinity_are_no_problem() -> None:
    logits_MV, labels_M = rows(20, torch.float32, scale=3e4)
    logits_MV[:, 0] = float("-inf")
    labels_M[labels_M == 0] = 1
    (loss, gradient), (exact_loss, exact) = both(logits_MV, labels_M, factor=1.0)
    torch.testing.assert_close(loss.double(), exact_loss)
    torch.testing.assert_close(gradient.double(), exact)


def llama() -> nn.Module:
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    made: nn.Module = LlamaForCausalLM(LlamaConfig(vocab_size=VOCAB, **shape))
    return made


def adapted() -> nn.Module:
    torch.manual_seed(1)
    return registry().get("peft", "lora")().apply(llama())  # type: ignore[no-any-return,attr-defined]


def prompted() -> nn.Module:
    torch.manual_seed(1)
    return registry().get("peft", "prefix_tuning")().apply(llama())  # type: ignore[no-any-return,attr-defined]


def batch() -> Batch:
    torch.manual_seed(2)
    ids_BT = torch.randint(VOCAB, (4, 11))
    labels_BT = ids_BT.roll(-1, 1)
    for row, prompt in enumerate((10, 3, 11, 7)):
        labels_BT[row, :prompt] = IGNORED
    return {"input_ids": ids_BT, "labels_BT": labels_BT}


def on_all(model: nn.Module, part: Batch) -> LossSum:
    """The loss on the logits of all positions, by torch."""
    labels_BT = part["labels_BT"]
    logits_BTV = model(input_ids=part["input_ids"]).logits
    total = F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), reduction="sum")
    return LossSum(total, (labels_BT != IGNORED).sum(), {})


@pytest.mark.parametrize("build", [llama, adapted, prompted])
@pytest.mark.parametrize("micro", [4, 1])
def test_a_head_on_learned_positions_gives_the_gradients_of_all(build: Any, micro: int) -> None:
    z_loss: Any = registry().get("stabilizer", "z_loss")
    chosen = methods(stabilizers=(z_loss(z_loss.Config(weight=0.1)),))
    found = []
    for loss_of in (language_modeling_loss, on_all):
        heads: list[torch.Size] = []
        model = build().double()
        head = model.get_output_embeddings()
        head.register_forward_hook(lambda module, args, output, heads=heads: heads.append(output.shape))
        options: dict[str, Any] = {"device": torch.device("cpu"), "micro_batch_size": micro, "scaler": None}
        result = Gradients(model, loss_of, chosen, **options).compute(batch(), 4)
        own = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        found.append((result.loss, own, sum(shape[0] * shape[1] for shape in heads)))
    (loss, own, positions), (exact_loss, exact, all_positions) = found
    torch.testing.assert_close(loss, exact_loss)
    assert own.keys() == exact.keys()
    for name, gradient in own.items():
        torch.testing.assert_close(gradient, exact[name], rtol=1e-9, atol=1e-12)
    assert positions == 1 + 8 + 0 + 4
    assert all_positions == 44


def test_nothing_keeps_single_precision_logits() -> None:
    seen: list[tuple[torch.dtype, int]] = []

    class Watch(TorchDispatchMode):  # type: ignore[misc]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and out.shape[-1:] == (VOCAB,):
                seen.append((out.dtype, out.numel()))
            return out

    logits_MV, labels_M = rows(5000, torch.bfloat16)
    logits_MV.requires_grad_()
    with Watch():  # type: ignore[no-untyped-call]
        cross_entropy_sum(logits_MV, labels_M, ignored=IGNORED).backward()  # type: ignore[no-untyped-call]
    largest = max(size * dtype.itemsize for dtype, size in seen if dtype == torch.float32)
    assert largest <= cross_entropy.CHUNK_BYTES["cpu"] < 4 * logits_MV.numel()


class Reads(TorchDispatchMode):
    """Counts what makes a host wait for a device: reads of a value, and shapes that depend on values."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += func.__name__.split(".")[0] in ("_local_scalar_dense", "nonzero", "masked_select")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("planted", [False, True])
def test_a_step_waits_for_no_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, planted: bool
) -> None:
    reads: Any = Reads()  # type: ignore[no-untyped-call]
    update, positions = Trainer._update, losses.learned_positions

    def watched(*args: Any) -> None:
        with reads:
            update(*args)

    def unwatched(labels_BT: Tensor) -> Tensor | None:  # of a batch that the host holds
        before, found = reads.count, positions(labels_BT)
        reads.count = before
        return found

    def reading(model: nn.Module, part: Batch) -> LossSum:
        found = language_modeling_loss(model, part)
        return found if found.total > 0 else LossSum(found.total, found.count, {})

    monkeypatch.setattr(Trainer, "_update", watched)
    monkeypatch.setattr(gradients, "learned_positions", unwatched)
    names = ("clip_norm", "z_loss")
    chosen = methods(
        precision=registry().get("precision", precision)(),
        stabilizers=tuple(registry().get("stabilizer", name)() for name in names),
    )
    run(tmp_path, steps=6, methods=chosen, loss=reading if planted else language_modeling_loss)
    assert reads.count == (6 if planted else 0)
