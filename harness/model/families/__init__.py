"""Families of Hugging Face checkpoints that our transformer can be made of, and written back as."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from harness.errors import UnknownNameError
from harness.model.families.family import Family

_MODULES = {
    "llama": "llama",
    "mistral": "llama",
    "qwen2": "llama",
    "qwen3": "llama",
    "phi3": "phi3",
    "mixtral": "mixtral",
    "gemma2": "gemma",
    "gemma3_text": "gemma",
    "gpt2": "gpt2",
    "gpt_neox": "gpt_neox",
    "opt": "opt",
    "bloom": "bloom",
    "t5": "t5",
}
"""model_type -> module, in the order in which an export looks for a family that can express a model."""

NAMES = tuple(_MODULES)


def family(model_type: str) -> Family:
    """The family of a checkpoint.

    Raises: UnknownNameError listing the families that exist
    """
    if model_type not in _MODULES:
        raise UnknownNameError(what="checkpoint family to import", name=model_type, known=NAMES)
    module: Any = import_module(f"harness.model.families.{_MODULES[model_type]}")
    found: Family = module.family(model_type)
    return found
