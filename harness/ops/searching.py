"""transformers' generate, told everything: no option comes from a checkpoint, no draw from a shared stream.

Shapes: input_BT ids padded on the left, mask_BT 1 = token -> BS new ids, padded on the right
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from harness.ops.decode import Job, decode, new_cache
from harness.ops.drawing import Draw, only_stops, rule_of, special_ids
from harness.ops.quantized_cache import UNPACKED

Stopping = Callable[[], Any]
"""Makes a stopping criterion of transformers' generate, which serves one call."""


def generate(
    model: nn.Module,
    input_BT: Tensor,
    mask_BT: Tensor,
    *,
    options: Mapping[str, Any],
    max_new_tokens: int,
    seeds: Sequence[int],
    stopping: Stopping | None = None,
    cache_bits: int = UNPACKED,
) -> Tensor:
    """New tokens under these options of transformers' generate; the global random state is left alone."""
    rule = rule_of(options)
    run = partial(search, model, max_new_tokens=max_new_tokens, stopping=stopping, cache_bits=cache_bits)
    if rule is not None and reads_tokens_alone(model) and stopping is None:
        ends, pad = special_ids(model)
        rows = zip(input_BT, mask_BT.bool(), seeds, strict=True)
        jobs = [
            Job(ids=ids_T[mask_T].tolist(), max_new_tokens=max_new_tokens, seed=seed)
            for ids_T, mask_T, seed in rows
        ]
        new = decode(model, jobs, rule, ends=ends, pad=pad, batch_size=len(jobs), cache_bits=cache_bits)
        return padded(new, pad, like=input_BT)
    if cache_bits != UNPACKED and not bool(mask_BT.all()):  # padding would share a grid with tokens
        each = [
            generate(
                model,
                ids_T[mask_T][None],
                mask_T[mask_T].long()[None],
                options=options,
                max_new_tokens=max_new_tokens,
                seeds=[seed],
                stopping=stopping,
                cache_bits=cache_bits,
            )[0].tolist()
            for ids_T, mask_T, seed in zip(input_BT, mask_BT.bool(), seeds, strict=True)
        ]
        return padded(each, special_ids(model)[1], like=input_BT)
    if rule is not None:
        plain = {"do_sample": False, "num_beams": 1, "logits_processor": [Draw(rule, seeds)]}
        return run(input_BT, mask_BT, options=plain)
    if not options.get("do_sample"):
        return run(input_BT, mask_BT, options=options)
    devices = [input_BT.device] if input_BT.is_cuda else []
    found = []
    with torch.random.fork_rng(devices=devices):
        for row, seed in enumerate(seeds):
            torch.manual_seed(seed)
            ids_1T = input_BT[row : row + 1, mask_BT[row].bool()]
            found.append(run(ids_1T, torch.ones_like(ids_1T), options=options)[0].tolist())
    return padded(found, special_ids(model)[1], like=input_BT)


def search(
    model: nn.Module,
    input_BT: Tensor,
    mask_BT: Tensor,
    *,
    options: Mapping[str, Any],
    max_new_tokens: int,
    stopping: Stopping | None = None,
    cache_bits: int = UNPACKED,
) -> Tensor:
    """transformers' generate with nothing but these options and the checkpoint's special tokens."""
    if cache_bits != UNPACKED:
        options = {**options, "past_key_values": new_cache(model, bits=cache_bits)}
    with only_stops(model):
        out: Tensor = model.generate(  # type: ignore[operator]
            input_ids=input_BT,
            attention_mask=mask_BT,
            max_new_tokens=max_new_tokens,
            stopping_criteria=None if stopping is None else [stopping()],
            **options,
        )
    return out[:, input_BT.shape[1] :]


def padded(rows: Sequence[Sequence[int]], pad: int, *, like: Tensor) -> Tensor:
    """Rows of new tokens as one tensor, padded on the right."""
    new_BS = like.new_full((len(rows), max(map(len, rows))), pad)
    for index, row in enumerate(rows):
        new_BS[index, : len(row)] = torch.tensor(row, device=like.device)
    return new_BS


def reads_tokens_alone(model: nn.Module) -> bool:
    """Whether a prompt needs nothing beside its tokens: no prefix to mark, no encoder, no virtual tokens."""
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        return False
    for module in model.modules():
        architecture: Any = getattr(module, "architecture", None)
        if hasattr(architecture, "has_encoder"):
            return not (architecture.uses_prefix() or architecture.has_encoder())
    return True
