"""PEFT: which parameters a stage trains."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, EffectError, IncompatibleError
from harness.method import CellView, Method, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from torch import nn


@dataclass(frozen=True, kw_only=True)
class Kept:
    """What of a block stands until the backward pass; the plan estimates a training's memory from it."""

    inputs: bool = True
    """Whether linear layers keep what they read, for a gradient of their weights or of adapters on them."""
    outputs: int = 0
    """How often what they return is kept as well."""
    skipped: int = 0
    """First blocks that keep nothing, because all that is trained lies behind them."""


class OnPacked(StrEnum):
    """Whether a method can stand on packed weights."""

    allowed = "allowed"
    refused = "refused"
    """It changes the weights that it stands on."""
    required = "required"
    """It starts from what packing lost."""


class Peft(Method):
    """A parameterisation of the update. `apply` before training; the artifact then holds what
    `delta` says: all weights, or an adapter in PEFT's own format.
    """

    axis = "peft"
    default = "full"
    delta: str = "adapter"
    """What a trained artifact stores: `weights` (full) or `adapter`."""
    mergeable: bool = False
    """Whether the update can be folded into unpacked weights."""
    virtual: bool = False
    """Whether it puts virtual tokens before a text, which only transformers' generate continues."""
    splittable: bool = False
    """Whether layers may be split by heads and hidden units beneath it: it neither wraps such a layer nor
    reaches into attention."""
    reversible: bool = True
    """Whether `disabled` gives back the model as it was before `apply`."""
    kept: Kept = Kept()
    """What its training keeps of each block's activations."""
    on_packed: OnPacked = OnPacked.allowed
    """Whether the weights beneath may, must, or must not be packed; `delta=weights` refuses them too."""
    before_packing: Callable[[], nn.Module] | None = None
    """Gives the model as it was when it was packed, set before `apply` where that is known."""

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        """Orders of stages that cannot work with this parameterisation, and targets that do not exist."""
        yield from order_problems(cell)
        if meta_model is not None:
            try:
                cls(config).targets(meta_model)
            except (EffectError, ConfigError, IncompatibleError) as error:
                yield Problem(where=f"peft={cls.name}", message=str(error))

    def targets(self, model: nn.Module) -> Sequence[str]:
        """Names of the modules that `apply` acts on; nothing where it acts on the model as a whole.

        Raises: EffectError listing the modules that exist, if target modules match nothing
        """
        return ()

    @abstractmethod
    def apply(self, model: nn.Module) -> nn.Module:
        """The model with exactly the method's parameters requiring gradients.

        Raises: EffectError listing the modules that exist, if target modules match nothing
        """
        raise NotImplementedError

    def merge(self, model: nn.Module) -> nn.Module:
        """The plain model with the update folded in.

        Raises: IncompatibleError where the method or packed weights do not allow it
        """
        raise IncompatibleError(f"peft={self.name} cannot be merged: its update is no change of weights")

    def save(self, model: nn.Module, directory: Path) -> None:
        """Write the adapter in PEFT's own format."""
        for config in model.peft_config.values():  # type: ignore[union-attr,operator]
            config.base_model_name_or_path = None
        # Embeddings that an adapter stands on are in the base.
        model.save_pretrained(directory, save_embedding_layers=False)  # type: ignore[operator]

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        """The base model with a saved adapter on it."""
        from peft import PeftModel

        return PeftModel.from_pretrained(model, directory, is_trainable=trainable)  # type: ignore[no-any-return]

    def disabled(self, model: nn.Module) -> AbstractContextManager[None]:
        """Within the context the model computes what it did before `apply`; where `reversible`."""
        return model.disable_adapter()  # type: ignore[operator,no-any-return]

    def trainable_parameters(self, model: nn.Module) -> int | None:
        """Parameters that `apply` will train on this model, by formula; None where none is known."""
        return None

    def virtual_tokens(self) -> int:
        """Positions that it puts before every sequence, which no loss reads."""
        return 0


def order_problems(cell: CellView) -> Iterable[Problem]:
    """Full tuning of packed weights, and an adapter after another that cannot be merged."""
    packed, adapter = False, None
    for stage in cell.stages:
        if "quantizer" in cell.reads(stage) and cell.choice("quantizer", stage=stage) is not None:
            if packed:
                yield Problem(where=stage, message="the model is packed already; drop one quantize stage")
            packed = True
        method = tuned_by(cell, stage)
        if method is None:
            continue
        if packed and (method.delta == "weights" or method.on_packed is OnPacked.refused):
            yield Problem(
                where=f"{stage}: peft={method.name}",
                message="packed weights cannot be trained; use peft=lora, or put quantize after this stage"
                if method.delta == "weights"
                else "it changes the weights that it stands on, and they are packed; use peft=loftq or lora, "
                "or put quantize after this stage",
            )
        if not packed and method.on_packed is OnPacked.required:
            yield Problem(
                where=f"{stage}: peft={method.name}",
                message="it starts from what packing lost, and the weights are not packed; choose a "
                "quantizer and put quantize before this stage, or use peft=lora or pissa",
            )
        if adapter is not None and adapter is not method and (packed or not adapter.mergeable):
            why = "the weights are packed" if packed else "its update is no change of weights"
            yield Problem(
                where=f"{stage}: peft={method.name}",
                message=f"the adapter of peft={adapter.name} cannot be merged first, because {why}; use one "
                "method for both stages",
            )
        adapter = method if method.delta == "adapter" else None


def tuned_by(cell: CellView, stage: str) -> type[Peft] | None:
    """The method with which a stage tunes the model; None for a stage that does not."""
    if "peft" not in cell.reads(stage) or cell.makes(stage) != "model":
        return None
    choice = cell.choice("peft", stage=stage)
    assert choice is not None
    return choice.method  # type: ignore[return-value]


def adapting_stage(cell: CellView, stage: str) -> str | None:
    """The stage whose adapter is on the model when a stage begins; None where it has none."""
    before = cell.stages[: cell.stages.index(stage)]
    tuning = [(name, method) for name in before if (method := tuned_by(cell, name)) is not None]
    return tuning[-1][0] if tuning and tuning[-1][1].delta == "adapter" else None


def adapter_before(cell: CellView, stage: str) -> type[Peft] | None:
    """The method whose adapter is on the model when a stage begins; None where it has none."""
    name = adapting_stage(cell, stage)
    return None if name is None else tuned_by(cell, name)


def match_modules(model: nn.Module, patterns: Iterable[str], *, where: str) -> list[str]:
    """Names of modules whose last part, or whole name, is one of `patterns`, each of which matches some.

    Raises: EffectError naming the patterns that match nothing, and the names that exist
    """
    patterns = list(patterns)
    names = [name for name, _ in model.named_modules() if name]
    last = {name.rpartition(".")[2] for name in names}
    strange = [pattern for pattern in patterns if pattern not in last and pattern not in names]
    if strange or not patterns:
        raise EffectError(
            f"{where}={patterns}: {', '.join(strange) or 'an empty list'} matches no module; "
            f"the model has {', '.join(sorted(name for name in last if not name.isdigit()))}"
        )
    return [name for name in names if name in patterns or name.rpartition(".")[2] in patterns]
