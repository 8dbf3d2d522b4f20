"""lm-eval's own controls of a run; light to import, as plans read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Controls:
    """lm-eval's own controls of a run."""

    limit: int | None = None
    num_fewshot: int | None = None
    chat_template: bool = False
    system_instruction: str | None = None
    fewshot_as_multiturn: bool = True
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    fewshot_seed: int = 1234
    batch_tokens: int = 1024
    as_trained: bool = False
    """Whether choices after a chat template are encoded as training encodes answers, not as lm-eval does."""
