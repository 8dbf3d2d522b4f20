"""Packed and adapted models as artifacts would load them, for the tests of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tiny_models as tiny
import torch

from harness.method import Choice
from harness.model.artifact import Loaded, describe
from harness.ops.calibration import Calibration

IDS = torch.arange(7, 27)[None]


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}
    return GPT2LMHeadModel(GPT2Config(vocab_size=tiny.VOCABULARY, **shape)).eval()


def packed(model: Any, choice: Choice, directory: Path) -> tuple[Loaded, torch.Tensor]:
    """A packed model as an artifact would load it, and its logits."""
    from harness.data.tokenization import load_tokenizer

    tiny.byte_tokenizer(directory)
    method: Any = choice.build()
    rows = torch.randint(3, tiny.VOCABULARY, (8, 64), generator=torch.Generator().manual_seed(0))
    calibration = Calibration(batches_BT=[rows], sha256="") if method.needs_calibration else None
    model = method.quantize(model, calibration)
    with torch.no_grad():
        logits = model(input_ids=IDS).logits
    loaded = Loaded(model=model, tokenizer=load_tokenizer(directory), base={}, applied=[describe(choice)])
    loaded.packed = True
    return loaded, logits


def adapted(
    make: Any, name: str, directory: Path, *, quantizer: str | None = None, **options: Any
) -> tuple[Loaded, Loaded]:
    """A model with a trained adapter that is not merged, and the same without it, as they are loaded."""
    from harness.data.tokenization import load_tokenizer

    tiny.byte_tokenizer(directory)
    choice = tiny.choose("peft", name, **options)
    both = []
    for with_adapter in (False, True):
        model, applied = make(), []
        if quantizer is not None:
            packing = tiny.choose("quantizer", quantizer)
            model, applied = packing.build().quantize(model, None), [describe(packing)]
        method = choice.build()
        if not with_adapter:
            torch.manual_seed(1)
            trained = method.apply(make() if quantizer is None else packing.build().quantize(make(), None))
            with torch.no_grad():
                for parameter in trained.parameters():
                    if parameter.requires_grad:
                        parameter.add_(torch.randn_like(parameter) * 0.1)
            method.save(trained, directory / "adapter")
        else:
            model = method.load(model, directory / "adapter", trainable=False)
        loaded = Loaded(model=model.eval(), tokenizer=load_tokenizer(directory), base={}, applied=applied)
        loaded.packed, loaded.adapter, loaded.adapter_path = (
            quantizer is not None,
            choice,
            directory / "adapter",
        )
        both.append(loaded)
    return both[1], both[0]
