"""The composable transformer. Light to import: Hugging Face's library loads with the first model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from harness.method import Choice, Method
from harness.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

    from harness.axes.architecture import Architecture
    from harness.model.hf import HarnessForCausalLM
    from harness.model.transformer import LanguageModel


def build(spec: ModelSpec, choices: Mapping[str, Choice], *, seed: int) -> HarnessForCausalLM:
    """A model of this shape and these methods with fresh weights; equal seeds give equal weights.

    Raises: ConfigError where shape and methods do not fit
    """
    from harness.model.choices import to_plain
    from harness.model.hf import HarnessConfig, HarnessForCausalLM
    from harness.model.weights import initialize

    model = HarnessForCausalLM(HarnessConfig.of(spec, to_plain(choices)), choices=choices)
    initialize(model, spec, seed=seed)
    return model


def meta_model(spec: ModelSpec, choices: Mapping[str, Choice]) -> LanguageModel:
    """The model's shapes without data, for the plan; imports torch only.

    Raises: ConfigError where shape and methods do not fit
    """
    import torch

    from harness.model.transformer import LanguageModel
    from harness.model.weights import unset

    with torch.device("meta"), unset():
        return LanguageModel(spec, choices)


def architecture_of(model: nn.Module) -> Architecture | None:
    """The architecture of a model of ours, whatever wraps it; None for other models."""
    for module in model.modules():
        found = getattr(module, "architecture", None)
        if isinstance(found, Method):
            return found  # type: ignore[return-value]
    return None


def register() -> None:
    """Make Hugging Face's Auto classes know our checkpoints."""
    from harness.model.hf import register as register_hf

    register_hf()


def __getattr__(name: str) -> Any:
    if name in ("HarnessConfig", "HarnessForCausalLM"):
        import harness.model.hf as hf

        return getattr(hf, name)
    raise AttributeError(f"module 'harness.model' has no attribute '{name}'")
