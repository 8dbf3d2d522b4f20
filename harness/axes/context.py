"""Context: extending the length a trained model can use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import ConfigError, IncompatibleError
from harness.method import CellView, Method, Problem
from harness.ops.extension import Rotary, rescale, rotary_sets, set_length, trained_length
from harness.ops.heads import Heads, Reach
from harness.ops.unrotated import install

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Context", "Heads", "Reach", "Rotary"]


class Context(Method):
    """A way to read beyond the trained length, on our models and on Hugging Face's.

    A scaled-rotary method implements `scale`; one that chooses distances or what is read implements
    `attend`; any other overrides `apply`.
    """

    axis = "context"
    default = "none"
    optional = True
    requires = frozenset({"rotary"})
    changes = frozenset({"rotary"})
    after = frozenset({"rotary"})
    trains: bool = False
    """Whether it is meant to be followed by training on long sequences (`extend.train` decides)."""

    @dataclass(frozen=True, kw_only=True)
    class Config(Method.Config):
        factor: float = 2.0
        """Target length as a multiple of the trained length."""

        def __post_init__(self) -> None:
            if not 1 <= self.factor < float("inf"):
                raise ConfigError(f"context.factor={self.factor} must be at least 1")

    config: Config

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        if "rotary" in cls.requires and _is_rotary_free(meta_model):
            yield Problem(
                where="context",
                message=f"context={cls.name} changes rotary positions, and a {type(meta_model).__name__} "
                "has none, or changes them itself; use context=direct_finetune or another model",
            )
        position = getattr(getattr(meta_model, "model", None), "position", None)
        if "rotary" in cls.requires and position is not None and getattr(position, "follows_length", False):
            yield Problem(
                where="context",
                message=f"context={cls.name} changes rotary positions, and those of position={position.name} "
                "follow the length by themselves; use context=direct_finetune, or position=rope",
            )
        attention = cell.choice("attention")
        if cls.attend is not Context.attend and getattr(
            getattr(attention, "method", None), "recurrent", False
        ):
            assert attention is not None
            yield Problem(
                where="context",
                message=f"context={cls.name} chooses scores, and attention={attention.method.name} has none; "
                "use attention=full, or a scaled-rotary context method",
            )

    @classmethod
    def extended(cls, config: Any, trained: int) -> int:
        """Tokens that a model trained on `trained` tokens shall read."""
        length: int = round(trained * config.factor)
        return length

    def target_length(self, model: nn.Module) -> int:
        """Tokens the model shall read."""
        return self.extended(self.config, trained_length(model))

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        """Rotary parameters to use for a sequence of `length` tokens; `config.factor` is exact, where the
        length is a whole number.
        """
        raise NotImplementedError

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any] | None:
        """What transformers' `rope_parameters` says of plain rotary positions that this method changed;
        None where it has no words for it.
        """
        return None

    def attend(self, heads: Heads) -> Tensor:
        """Self-attention from unrotated queries and keys (BNTH), a block of queries at a time."""
        raise NotImplementedError

    def reach(self) -> Reach:
        """(first tokens, last tokens) that `attend` reads at most, so that no more are kept; None = all."""
        return None

    def apply(self, model: nn.Module) -> nn.Module:
        """The model reading longer contexts; also called when an artifact is loaded again."""
        length = self.target_length(model)
        if type(self).attend is not Context.attend:
            self.before_install(model)
            install(model, self.attend, reach=self.reach())
        else:
            rescale(model, self.scale, length=length)
        set_length(model, length)
        return model

    def before_install(self, model: nn.Module) -> None:
        """Read off the model what `attend` needs, e.g. its trained length."""


def _is_rotary_free(meta_model: nn.Module | None) -> bool:
    """Whether a model from outside has no rotary positions that can be changed."""
    if not hasattr(meta_model, "config"):  # ours says by its choices what it has
        return False
    assert meta_model is not None
    try:
        rotary_sets(meta_model)
    except IncompatibleError:
        return True
    return False
