"""Whether a model keeps conversations apart that share one sequence, found by running it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from harness.errors import IncompatibleError

FIRST, SECOND = 7, 9
"""Tokens of the two conversations that are tried; neither fills a block of anything."""
NOISE = 10.0
"""Times the rounding difference of the first conversation that the second may show."""
CAUSAL = 0.1
"""Difference of the first conversation above which it is no rounding: the model reads ahead."""


@torch.no_grad()
def packing_leak(model: Any) -> float:
    """How far the second of two packed conversations is from itself alone, in units of its logits' spread.

    What a causal model says of the first conversation cannot depend on the second, so that its difference
    is rounding, and up to `NOISE` times that counts as none; a model that reads ahead leaks there too.
    """
    generator = torch.Generator().manual_seed(0)
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    ids_1T = torch.randint(vocabulary, (1, FIRST + SECOND), generator=generator)
    ids_1T = ids_1T.to(model.get_input_embeddings().weight.device)
    positions_1T = torch.cat([torch.arange(FIRST), torch.arange(SECOND)])[None].to(ids_1T.device)
    training = model.training
    model.eval()
    packed_TV = model(input_ids=ids_1T, position_ids=positions_1T, use_cache=False).logits[0].float()
    alone = [
        model(input_ids=part, use_cache=False).logits[0].float()
        for part in ids_1T.split([FIRST, SECOND], dim=1)
    ]
    model.train(training)
    rounding = _distance(packed_TV[:FIRST], alone[0])
    leak = _distance(packed_TV[FIRST:], alone[1])
    if rounding > CAUSAL:
        return max(leak, rounding)
    return 0.0 if leak <= max(NOISE * rounding, 1e-4) else leak


def refuse_leaks(model: Any) -> None:
    """Refuse to pack for a model that reads across conversations.

    Raises: IncompatibleError with the measured difference
    """
    try:
        leak = packing_leak(model)
    except TypeError as error:  # a model that takes no positions
        raise IncompatibleError(
            f"packing: {type(model).__name__} takes no position_ids, by which conversations are told apart; "
            "use instruction_strategy=proportional or another that does not pack"
        ) from error
    if leak:
        raise IncompatibleError(
            f"packing: {type(model).__name__} does not keep packed conversations apart: its logits for the "
            f"second of two differ from those alone by {leak:.1%} of their spread; use "
            "instruction_strategy=proportional or another that does not pack"
        )


def _distance(first: Tensor, second: Tensor) -> float:
    return float((first - second).abs().max() / second.std())
