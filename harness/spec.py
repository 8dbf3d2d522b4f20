"""The shape of a transformer, and the points where any method may change it."""

from dataclasses import dataclass, field, fields
from typing import Any

from harness.errors import ConfigError

_BY_METHODS = {"set_by": "methods"}
_MOST = {"num_layers": 4096, "num_encoder_layers": 4096, "head_dim": 2**16}
"""Sizes of what a plan holds in memory, a module a layer and a table of angles; above any model there is
(1,000 layers: DeepNet, arXiv:2203.00555)."""


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """Everything the composable transformer is built from, besides its methods.

    Shapes: dim = D, num_heads = N, head_dim = H, vocab_size = V
    Raises: ConfigError for sizes below one, and for those that no machine could plan
    """

    vocab_size: int = field(metadata=_BY_METHODS)
    """Entries of the embedding table, special tokens included."""
    dim: int = 128
    """Width of the residual stream."""
    num_layers: int = 4
    """Decoder blocks."""
    num_encoder_layers: int = 0
    """Encoder blocks; 0 unless the architecture has an encoder."""
    num_heads: int = 4
    """Query heads."""
    head_dim: int = 32
    """Width of one head."""
    ffn_dim: int = 512
    """Hidden width of the feed-forward layer."""
    max_length: int = 256
    """Longest sequence trained on, in tokens."""
    dropout: float = 0.0
    """Probability of dropping an activation."""
    bias: bool = False
    """Whether linear layers and norms carry biases."""
    qkv_bias: bool | None = None
    """Whether query, key and value projections carry biases; null follows `bias`."""
    out_bias: bool | None = None
    """Whether the attention's output projection carries one; null follows `bias`."""
    norm_bias: bool | None = None
    """Whether norms that can carry a bias do; null follows `bias`."""
    tie_embeddings: bool = True
    """Whether the output head shares the input embedding."""
    embedding_norm: bool = False
    """Whether embeddings are normalised before the first block (BLOOM)."""
    parallel_residual: bool = False
    """Whether attention and feed-forward read the same input and are added together (GPT-NeoX, PaLM)."""
    attention_scale: float | None = None
    """Factor on the scores before the softmax; null is head_dim ** -0.5, T5 uses 1."""
    logit_scale: float = 1.0
    """Factor on the last hidden state before the output head; T5 with tied embeddings uses dim ** -0.5."""
    logit_cap: float | None = None
    """Bound c of the logits, c tanh(logits / c); null is none (Gemma 2: 30)."""
    attention_cap: float | None = None
    """Bound of the scores before the softmax, likewise (Gemma 2: 50)."""
    embedding_scale: float = 1.0
    """Factor on the embeddings before the first block (Gemma: dim ** 0.5)."""
    embedding_dim: int | None = None
    """Width of the embedding table, projected to dim and back; null is dim (OPT-350m: 512 of 1024)."""
    layer_pattern: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    """How layers differ, repeated over them: {attention, position or feed_forward: {method, options}} each;
    what is not named is the model's choice. [] = all are alike."""
    norm_offset: bool = False
    """Whether RMSNorms multiply by 1 + weight (Gemma)."""
    norm_eps: float = 1e-5
    """Added to the variance before the square root."""
    init_std: float = 0.02
    """Standard deviation of initial weights."""
    # What follows is set by methods through `modify_spec`, never by presets or overrides.
    residual_scale: float = field(default=1.0, metadata=_BY_METHODS)
    """Factor on the residual branch x before it is added (DeepNorm's alpha)."""
    init_gain: float = field(default=1.0, metadata=_BY_METHODS)
    """Factor on the initial weights of ffn, value and output projections (DeepNorm's beta)."""
    encoder_residual_scale: float = field(default=1.0, metadata=_BY_METHODS)
    """The same for encoder blocks."""
    encoder_init_gain: float = field(default=1.0, metadata=_BY_METHODS)
    """The same for encoder blocks."""
    rotary_dim: int | None = field(default=None, metadata=_BY_METHODS)
    """Components of a head that positions may rotate; null is all of head_dim (latent attention: fewer)."""
    qk_norm: bool = field(default=False, metadata=_BY_METHODS)
    """Whether queries and keys are normalised per head before their product."""
    embedding_gradient_scale: float = field(default=1.0, metadata=_BY_METHODS)
    """Share of the embedding's gradient that is kept (GLM-130B's alpha)."""

    def __post_init__(self) -> None:
        for name in ("vocab_size", "dim", "num_layers", "num_heads", "head_dim", "ffn_dim", "max_length"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name}={getattr(self, name)} must be at least 1")
        for name, most in _MOST.items():
            if (getattr(self, name) or 0) > most:
                raise ConfigError(f"model.{name}={getattr(self, name)} must be at most {most}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"model.dropout={self.dropout} must lie in [0, 1)")


SET_BY_METHODS = tuple(f.name for f in fields(ModelSpec) if f.metadata == _BY_METHODS)
"""Fields that follow from the chosen methods; no preset and no override sets them."""
