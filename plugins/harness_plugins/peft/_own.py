"""Shared by the methods the `peft` library lacks: modules put around others, saved by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from harness import Peft

if TYPE_CHECKING:
    from pathlib import Path

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""The names PEFT uses."""


class Wrapper(nn.Module):
    """A module around another that can be switched off; attributes are looked up in what it wraps."""

    enabled: bool = True

    def __init__(self, base_layer: nn.Module) -> None:
        super().__init__()
        self.base_layer = base_layer

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("base_layer"), name)


class OwnPeft(Peft):
    """Trains modules of its own; saves exactly the parameters that require gradients.

    Options: `prefix` before the names of saved weights, where the peft library writes one
    """

    prefix = ""

    def adapter_config(self, model: nn.Module) -> dict[str, Any]:
        """What stands in the saved adapter_config.json."""
        return {"peft_type": self.name.upper()}

    def save(self, model: nn.Module, directory: Path) -> None:
        from safetensors.torch import save_file

        directory.mkdir(parents=True, exist_ok=True)
        trained = {
            self.prefix + name: parameter.detach().contiguous()
            for name, parameter in model.named_parameters()
            if parameter.requires_grad
        }
        save_file(trained, directory / WEIGHTS)
        (directory / CONFIG).write_text(json.dumps(self.adapter_config(model)) + "\n")

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        from safetensors.torch import load_file

        model = self.apply(model)
        saved = load_file(directory / WEIGHTS)
        state = {name.removeprefix(self.prefix): value for name, value in saved.items()}
        _, unexpected = model.load_state_dict(state, strict=False)
        assert not unexpected, f"the adapter holds {unexpected[:3]}, which the model lacks"
        if not trainable:
            model.requires_grad_(False)
        return model

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[None]:
        wrappers = [module for module in model.modules() if isinstance(module, Wrapper)]
        for wrapper in wrappers:
            wrapper.enabled = False
        try:
            yield
        finally:
            for wrapper in wrappers:
                wrapper.enabled = True
