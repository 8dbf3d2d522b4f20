"""Shared by the methods that prepend trained vectors: the model reads tokens that do not exist."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from harness import ConfigError, Kept, Peft, Problem

from ._library import LibraryPeft

if TYPE_CHECKING:
    from pathlib import Path

    from harness import CellView

ENCODER = "prompt_encoder.safetensors"
"""The trained encoder behind the vectors, which PEFT's own format leaves out."""


@dataclass(frozen=True, kw_only=True)
class VirtualConfig(Peft.Config):
    """Options of every method with virtual tokens."""

    num_virtual_tokens: int = 8
    """Trained vectors before each sequence."""

    def __post_init__(self) -> None:
        if self.num_virtual_tokens < 1:
            raise ConfigError(f"peft.num_virtual_tokens={self.num_virtual_tokens} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class EncodedConfig(VirtualConfig):
    """Options of methods that compute their vectors by a small network while training."""

    hidden: int = 64
    """Width of the network that computes the vectors."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1:
            raise ConfigError(f"peft.hidden={self.hidden} must be at least 1")


class VirtualTokens(LibraryPeft):
    """Base of prefix, prompt and p-tuning. Outputs are cut to the real tokens."""

    Config = VirtualConfig
    config: VirtualConfig
    virtual = True
    kept = Kept(inputs=False)

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        yield from super().check(config, cell, meta_model)
        architecture = getattr(getattr(meta_model, "model", None), "architecture", None)
        if architecture is not None and architecture.uses_prefix():
            yield Problem(
                where=f"peft={cls.name}",
                message=f"virtual tokens stand where architecture={architecture.name} counts its prefix "
                "from; use another peft method, or architecture=causal_decoder",
            )
        for stage in cell.stages:
            if not {"peft", "instruction_strategy"} <= {*cell.reads(stage)}:
                continue
            tuned, strategy = (cell.choice(axis, stage=stage) for axis in ("peft", "instruction_strategy"))
            if strategy is None or tuned is None or (tuned.method, tuned.config) != (cls, config):
                continue
            packing, name = strategy.build(), strategy.method.name
            if packing.packs() or packing.pretraining_share():
                several = "conversations" if packing.packs() else "documents of pretraining data"
                yield Problem(
                    where=f"peft={cls.name}",
                    message=f"virtual tokens stand before a sequence, and instruction_strategy={name} packs "
                    f"several {several} into one; use proportional",
                )

    def virtual_tokens(self) -> int:
        return self.config.num_virtual_tokens

    def embedded(self, model: nn.Module) -> dict[str, Any]:
        """What the library is told of vectors that stand before embedded tokens; heads, of which it wants a
        number, are none of theirs."""
        return {
            "num_virtual_tokens": self.config.num_virtual_tokens,
            "token_dim": width(model),
            "num_attention_heads": 1,
            "task_type": "CAUSAL_LM",
        }

    def apply(self, model: nn.Module) -> nn.Module:
        wrapped = super().apply(model)
        if hasattr(wrapped, "word_embeddings"):  # the library takes the first weight with vocab_size rows
            wrapped.word_embeddings = model.get_input_embeddings()  # type: ignore[operator]
        return _cut(wrapped)

    def save(self, model: nn.Module, directory: Path) -> None:
        from safetensors.torch import save_file

        super().save(model, directory)
        encoder: Any = model.prompt_encoder
        state = {name: tensor.contiguous() for name, tensor in encoder.state_dict().items()}
        save_file(state, directory / ENCODER)

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        from safetensors.torch import load_file

        model = self.apply(model)
        encoder: Any = model.prompt_encoder
        encoder.load_state_dict(load_file(directory / ENCODER))
        if not trainable:
            model.requires_grad_(False)
        return model


def width(model: nn.Module) -> int:
    """Numbers in one embedded token."""
    return int(model.get_input_embeddings().weight.shape[1])  # type: ignore[operator]


def _cut(model: nn.Module) -> nn.Module:
    """Drop the logits of virtual tokens, so that there is one row for each real one."""

    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> Any:
        ids = kwargs.get("input_ids", args[0] if args else None)
        # Logits of learned positions alone are one row; virtual tokens learn nothing.
        if ids is not None and getattr(out, "logits", None) is not None and len(out.logits) == len(ids):
            out.logits = out.logits[:, -ids.shape[1] :]
            if getattr(out, "hidden_states", None):
                out.hidden_states = tuple(h[:, -ids.shape[1] :] for h in out.hidden_states)
        return out

    model.register_forward_hook(hook, with_kwargs=True)
    return model
