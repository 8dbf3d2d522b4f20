"""Rotation: an equivalent model whose weights are easier to quantize."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from torch import Tensor, nn

from harness.errors import IncompatibleError
from harness.method import Method
from harness.ops.rotation import Rotated, attach, fold_norms, probe, trace, turn

TOLERANCE = 1e-3
"""Largest change of logits, relative to the largest of them, that arithmetic explains."""


class Rotation(Method):
    """Rotates the residual stream before the linear layers are packed; the logits stay what they were.

    The embedding's output is rotated as it comes and turned back before the last norm, so that embedding and
    head, which no quantizer packs, keep their weights and may be tied. The factors of the norms move into the
    layers that read them. A method says which rotation.
    """

    axis = "rotation"
    default = "none"
    optional = True
    changes = frozenset({"weights"})

    @abstractmethod
    def matrix(self, size: int) -> Tensor:
        """The rotation (size x size, float64, orthogonal), the same at every call."""
        raise NotImplementedError

    def rotates_heads(self) -> bool:
        """Whether what each head passes on is rotated too."""
        return True

    def rotate(self, model: nn.Module) -> nn.Module:
        """The rotated model, in place.

        Raises: IncompatibleError where the model cannot be rotated, found by trying
        """
        expected = probe(model)
        plan = self.plan(model)
        fold_norms(model, plan)
        turn(model, plan)
        attach(model, plan)
        error = float((probe(model) - expected).abs().max() / expected.abs().max())
        if not error < TOLERANCE:
            raise IncompatibleError(
                f"rotation={self.name} changes the logits of {type(model).__name__} by {error:.2g} of their "
                "size: its layers read or write the residual stream in another way than Llama's do; use "
                "rotation=none"
            )
        return model

    def empty(self, model: nn.Module) -> nn.Module:
        """The model as a rotated one computes, its weights yet to be loaded."""
        attach(model, self.plan(model))
        return model

    def plan(self, model: nn.Module) -> Rotated:
        """What is to be rotated, and by what."""
        plan = trace(model, heads=self.rotates_heads())
        width = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        plan.residual_DD = self.matrix(width)
        size = head_size(model)
        if plan.attentions and size is not None:
            plan.heads_HH = self.matrix(size)
        return plan


def head_size(model: nn.Module) -> int | None:
    """Features of one head; None where the config does not say."""
    config: Any = getattr(model, "config", None)
    spec = getattr(config, "spec", None)
    found = spec.get("head_dim") if isinstance(spec, dict) else getattr(config, "head_dim", None)
    if found is None and hasattr(config, "num_attention_heads"):
        found = config.hidden_size // config.num_attention_heads
    return None if found is None else int(found)
