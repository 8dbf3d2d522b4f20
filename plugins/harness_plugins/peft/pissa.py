"""PiSSA: LoRA that trains a weight's largest singular components themselves."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from harness import IncompatibleError, Method, OnPacked, PackedLinear, hookimpl

from ._lora import LoRAConfig, LoRAFamily
from ._own import CONFIG, WEIGHTS
from ._start import adapted_layers


class PiSSA(LoRAFamily):
    """Principal singular values and vectors adaptation: W = W_res + B A, B A being the top r components.

    What is saved is the change, B A less its start, as a plain LoRA of rank 2 r on the weights as they were.
    Paper: Meng et al. 2024, arXiv:2404.02948, eq. 2 to 4
    Error: W_res is rounded to the weights' precision
    State: the start of A and B, on the model; a singular value decomposition makes it again
    Raises: IncompatibleError on packed weights
    """

    name = "pissa"
    on_packed = OnPacked.refused

    @dataclass(frozen=True, kw_only=True)
    class Config(LoRAConfig):
        """Rank, scale, dropout and targets."""

    def library_config(self, model: nn.Module) -> Any:
        return self.lora_config(model, init_lora_weights="pissa")

    def apply(self, model: nn.Module) -> nn.Module:
        if any(isinstance(module, PackedLinear) for module in model.modules()):
            raise IncompatibleError(
                "peft=pissa takes its start out of the weights, and these are packed; use peft=loftq or "
                "lora, or put quantize after this stage"
            )
        model = super().apply(model)
        # As the library saves it: no one must decompose the weights again.
        model.peft_config["default"].init_lora_weights = True  # type: ignore[index,union-attr]
        start: Any = {name: p.detach().clone() for name, p in matrices(model).items()}
        model.adapter_start = start
        return model

    def save(self, model: nn.Module, directory: Path) -> None:
        super().save(model, directory)
        start = getattr(model, "adapter_start", None)
        if start is not None:
            save_change(directory, start)

    @contextmanager
    def disabled(self, model: nn.Module) -> Iterator[None]:
        """The start's own B A makes W_res the weights that they were; modules trained whole are off.

        Storages change places: a pass that waits for its gradient still finds the numbers that it read.
        """
        start: dict[str, Tensor] | None = getattr(model, "adapter_start", None)
        if start is None:  # loaded, so a plain LoRA
            with super().disabled(model):
                yield
            return
        from peft.utils import AuxiliaryTrainingWrapper

        beside = [module for module in model.modules() if isinstance(module, AuxiliaryTrainingWrapper)]
        trained = {name: p.data for name, p in matrices(model).items()}
        put(model, {name: value.to(trained[name]) for name, value in start.items()})
        for module in beside:
            module.enable_adapters(False)
        try:
            yield
        finally:
            put(model, trained)
            for module in beside:
                module.enable_adapters(True)


def matrices(model: nn.Module) -> dict[str, nn.Parameter]:
    """A and B of every layer, by the names under which the peft library saves them."""
    return {
        f"base_model.model.{name}.{kind}.weight": getattr(layer, kind)["default"].weight
        for name, layer in adapted_layers(model)
        for kind in ("lora_A", "lora_B")
    }


def put(model: nn.Module, values: dict[str, Tensor]) -> None:
    """Put these tensors in the place of A and B."""
    for name, parameter in matrices(model).items():
        parameter.data = values[name]


def save_change(directory: Path, start: dict[str, Tensor]) -> None:
    """Rewrite a saved adapter as the change from its start: [B, -B_0] [A; A_0], at twice the rank.

    The scale alpha / r stays what it was, so alpha doubles with it.
    """
    from safetensors.torch import load_file, save_file

    tensors = load_file(directory / WEIGHTS)
    for name, first in start.items():
        first = first.to(tensors[name])
        down = ".lora_A." in name
        tensors[name] = torch.cat(
            [tensors[name], first if down else -first], dim=0 if down else 1
        ).contiguous()
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    config = json.loads((directory / CONFIG).read_text())
    for option in ("r", "lora_alpha"):
        config[option] *= 2
    for option in ("rank_pattern", "alpha_pattern"):
        config[option] = {key: 2 * value for key, value in config[option].items()}
    (directory / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [PiSSA]
