"""What instruct, reward and align share: put a peft method on the model, and save what it trained."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from harness.axes.peft import Peft
from harness.errors import EffectError, IncompatibleError
from harness.method import Choice
from harness.model.artifact import Delta, Loaded, describe, save_model
from harness.model.snapshot import Snapshot, prove, snapshot, tensor_hash


@dataclass(kw_only=True)
class Adapted:
    """A model ready to train, and how it got there."""

    model: nn.Module
    loaded: Loaded
    choice: Choice
    method: Peft
    fresh: bool
    """Whether the adapter starts here; else one on packed weights goes on."""
    start: str
    """Hash of the trainable parameters before training."""
    effects: dict[str, Any]

    def trained(self) -> dict[str, Any]:
        """Proof that training moved the parameters.

        Raises: EffectError if it did not
        """
        if trainable_hash(self.model) == self.start:
            raise EffectError(
                f"peft={self.choice.method.name} trained nothing: no trainable parameter moved; "
                "raise the stage's budget or learning_rate"
            )
        return {f"peft={self.choice.method.name}": {**self.effects, "adapter_is_fresh": self.fresh}}

    def save(self, out: Path, *, applied: list[dict[str, Any]], template: bool) -> dict[str, int]:
        """Write the artifact: all weights, or an adapter beside its base; says how large its tensors are."""
        delta = Delta(self.method.delta)
        base = self.loaded.base if self.fresh else self.loaded.adapter_base
        save_model(
            out,
            self.model,
            base=base,
            delta=delta,
            applied=[*self.loaded.applied, *applied],
            tokenizer=self.loaded.tokenizer_from,
            template=template,
            adapter=self.choice if delta is Delta.adapter else None,
        )
        return {"checkpoint_bytes": sum(file.stat().st_size for file in out.rglob("*.safetensors"))}


def trainable_hash(model: nn.Module) -> str:
    """Hash of the parameters that require gradients."""
    return tensor_hash({name: p for name, p in model.named_parameters() if p.requires_grad})


def adapt(loaded: Loaded, choice: Choice) -> Adapted:
    """Apply the chosen peft method; an adapter that could not be merged goes on where it is the same method.

    Raises: EffectError if nothing became trainable, IncompatibleError on an adapter of another method
    """
    method: Peft = choice.build()
    method.before_packing = loaded.before_packing
    if loaded.adapter is not None and loaded.adapter.method is not choice.method:
        why = "the weights are packed" if loaded.packed else "its update is no change of weights"
        raise IncompatibleError(
            f"peft={choice.method.name} cannot follow peft={loaded.adapter.method.name}: its adapter cannot "
            f"be merged, because {why}; use the same method for both stages, or tune with a mergeable one"
        )
    fresh = loaded.adapter is None
    before: Snapshot = snapshot(loaded.model.requires_grad_(False) if fresh else loaded.model)
    model = method.apply(loaded.model) if fresh else loaded.model
    after = snapshot(model)
    if not after.trainable:
        raise EffectError(f"peft={choice.method.name} left no parameter trainable")
    effects = prove(before, after, what=f"peft={choice.method.name}") if fresh else {}
    effects["trainable_parameters"] = after.trainable
    effects["trainable_share"] = after.trainable / max(1, after.parameters)
    return Adapted(
        model=model,
        loaded=loaded,
        choice=choice,
        method=method,
        fresh=fresh,
        start=trainable_hash(model),
        effects=effects,
    )


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Switch off all that is random in a model that trains: dropout of layers, rates that modules or the
    config hold, and the noise of routers to experts, which are held as they are in evaluation.
    """
    kept: list[tuple[Any, str, float]] = []
    routers = [module for module in model.modules() if _draws_noise(module)]
    trained = [module.training for module in routers]
    config = getattr(model, "config", None)
    for owner in [*model.modules(), *([config] if config is not None else [])]:
        for name, value in vars(owner).items():
            rate = "drop" in name or (name == "p" and isinstance(owner, _DropoutNd))
            if rate and isinstance(value, float) and value > 0:
                kept.append((owner, name, value))
    try:
        for owner, name, _ in kept:
            setattr(owner, name, 0.0)
        for router in routers:
            router.eval().__dict__["train"] = partial(_unmoved, router)
        yield
    finally:
        for owner, name, value in kept:
            setattr(owner, name, value)
        for router, training in zip(routers, trained, strict=True):
            del router.__dict__["train"]
            router.train(training)


def _draws_noise(module: nn.Module) -> bool:
    """Whether a module draws noise where it trains (Mixtral's jitter, PhiMoE's choice of experts)."""
    return any("jitter" in name and isinstance(v, float) and v > 0 for name, v in vars(module).items())


def _unmoved(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


def peft_entry(choice: Choice, *, stage: str) -> dict[str, Any]:
    """The entry of a tuned model in `applied`."""
    return {**describe(choice), "stage": stage}
