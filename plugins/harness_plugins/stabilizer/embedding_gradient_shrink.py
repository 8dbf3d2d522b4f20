"""Embedding gradient shrink: the embedding learns more slowly than the rest."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from harness import ConfigError, Method, ModelSpec, Stabilizer, hookimpl


class EmbeddingGradientShrink(Stabilizer):
    """Passes on a share of the gradient that reaches the token embedding.

    Paper: Zeng et al. 2022, arXiv:2210.02414, section 3.3 (GLM-130B)
    Raises: ConfigError if share lies outside [0, 1)
    """

    name = "embedding_gradient_shrink"
    changes = frozenset({"embedding_gradient"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Stabilizer.Config):
        share: float = 0.1
        """Share of the gradient that is kept (GLM-130B's alpha)."""

        def __post_init__(self) -> None:
            if not 0 <= self.share < 1:
                raise ConfigError(
                    f"stabilizer.embedding_gradient_shrink.share={self.share} must lie in [0, 1)"
                )

    config: Config

    @classmethod
    def modify_spec(cls, config: Any, spec: ModelSpec) -> ModelSpec:
        return replace(spec, embedding_gradient_scale=config.share)

    def modify_model(self, model: nn.Module) -> nn.Module:
        """Models that were built without it get a hook; ours already hold the share in their spec."""
        spec = getattr(getattr(model, "config", None), "spec", None) or {}
        if spec.get("embedding_gradient_scale", 1.0) == 1.0:
            embedding: Any = model.get_input_embeddings()  # type: ignore[operator]
            embedding.register_forward_hook(self._shrink)
        return model

    def _shrink(self, module: nn.Module, inputs: Any, output_BTD: Tensor) -> Tensor:
        share = self.config.share
        return output_BTD * share + output_BTD.detach() * (1 - share)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [EmbeddingGradientShrink]
