"""What a training costs before it runs: FLOPs, peak tensor bytes and disk, by formulas stated here.

Units: bytes and FLOPs; GiB = 2**30 bytes
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.axes.peft import Kept
from harness.spec import ModelSpec

ALL = Kept()


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Which logits a loss reads."""

    share: float = 1.0
    """Share of positions that it reads."""
    picked: bool = False
    """Whether it learns from some of all, as an alignment does: their gradient is then put among zeros."""
    chunked: bool = False
    """Whether the loss keeps no log-softmax: beside the logits that it reads stands their gradient alone."""
    reference: bool = False
    """Whether a reference reads the same answers while what the policy keeps of them stands."""
    copies: int = 0
    """What terms beside the loss hold of the logits that they read, in fp32."""
    rounding: int = 0
    """Bytes that stand beside each number of their gradient while the head's products read it."""


EVERY = Scored()


@dataclass(frozen=True, kw_only=True)
class Size:
    """A model's size, as far as cost depends on it.

    Shapes: dim D, num_layers L, num_heads N, ffn_dim F, vocab_size V; `gated` has three feed-forward
    matrices; where there are encoder layers, each of the L blocks reads the source too
    """

    vocab_size: int
    dim: int
    num_layers: int
    num_heads: int
    ffn_dim: int
    head_dim: int = 0
    gated: bool = True
    tied: bool = False
    num_encoder_layers: int = 0
    counted: tuple[int, int] | None = None
    """(weights that are multiplied, all weights) where a model was built to count them."""
    hidden: float | None = None
    """Values that a token keeps of a block's feed-forward layer; null is of one with these matrices."""
    scores: float = 0.0
    """Values in fp32 that a token keeps of a block's scores, where no fused kernel computes them."""

    @classmethod
    def of(
        cls,
        spec: ModelSpec,
        *,
        gated: bool = True,
        counted: tuple[int, int] | None = None,
        hidden: float | None = None,
        scores: float = 0.0,
    ) -> Size:
        """The size of a spec; `hidden` and `scores` are means over its layers."""
        return cls(
            vocab_size=spec.vocab_size,
            dim=spec.dim,
            num_layers=spec.num_layers,
            num_heads=spec.num_heads,
            head_dim=spec.head_dim,
            ffn_dim=spec.ffn_dim,
            gated=gated,
            tied=spec.tie_embeddings,
            num_encoder_layers=spec.num_encoder_layers,
            counted=counted,
            hidden=hidden,
            scores=scores,
        )

    @property
    def width(self) -> int:
        """Width of all heads together."""
        return self.num_heads * (self.head_dim or self.dim // self.num_heads)

    @property
    def layer_weights(self) -> int:
        """Linear weights of one block."""
        return 4 * self.dim * self.width + (3 if self.gated else 2) * self.dim * self.ffn_dim

    @property
    def linear_weights(self) -> int:
        """Linear weights of all blocks: what quantization packs."""
        cross = 4 * self.dim * self.width * self.num_layers if self.num_encoder_layers else 0
        return (self.num_layers + self.num_encoder_layers) * self.layer_weights + cross

    @property
    def parameters(self) -> int:
        """All weights: blocks, norms, embedding and head."""
        if self.counted is not None:
            return self.counted[1]
        norms = (2 * self.num_layers + 1) * self.dim
        if self.num_encoder_layers:
            norms += (2 * self.num_encoder_layers + 1 + self.num_layers) * self.dim
        return self.linear_weights + norms + (1 if self.tied else 2) * self.vocab_size * self.dim

    @property
    def multiplied(self) -> int:
        """Weights that take part in matrix products: not norms, nor an embedding only looked up."""
        return self.counted[0] if self.counted else self.linear_weights + self.vocab_size * self.dim

    def flops_per_token(self, sequence_length: int, *, adapters: int | None = None) -> float:
        """FLOPs of a training step per token, by the convention that training measures too.

        4 x weights that are multiplied + 2 x those trained + 12 x L x N x H x T (PaLM, arXiv:2204.02311,
        appendix B); `adapters` are the only weights trained, beside the model's own, or None where all are
        """
        multiplied = self.multiplied + (adapters or 0)
        trained = multiplied if adapters is None else adapters
        return 4 * multiplied + 2 * trained + 12 * self.num_layers * self.width * sequence_length

    def layer_activations(
        self,
        sequence_length: int,
        *,
        element: int,
        flash: bool = True,
        kept: Kept = ALL,
        autocast: bool = False,
        parts: int = 1,
    ) -> float:
        """Bytes that one block keeps for the backward pass, per token.

        Two norms (input and normalised), q k v, rotated q k, attention's output, the residual sum, and the
        feed-forward's hidden values; without flash also scores and probabilities over T keys (one in fp32).
        Under autocast residual sums and norms stay in fp32, beside copies in 16 bits. Heads and hidden units
        may be split into `parts`; norms and sums are whole in each.

        Paper: Korthikanti et al. 2022, arXiv:2205.05198, section 4.1
        """
        matrices = 2 if self.gated else 1
        unread = 0 if kept.inputs else 2 * self.dim + self.ffn_dim
        outputs = kept.outputs * (2 * self.dim + 3 * self.width + matrices * self.ffn_dim)
        hidden = 2 * matrices * self.ffn_dim if self.hidden is None else self.hidden
        scores = 4 * self.scores
        if not flash:
            scores = (2 * element + 4) * self.num_heads * sequence_length
        wide = 16 * self.dim if autocast else 0
        split = (element * (4 * self.width + hidden) + scores) / parts
        return element * (6 * self.dim - unread + outputs) + wide + split

    def logits(self, *, element: int, scored: Scored = EVERY) -> float:
        """Bytes of logits per token: themselves, and in fp32 the log-softmax of those scored and its
        gradient; a chunked loss has a gradient in their own format, and none of the others.

        A reference's log-softmax stands beside the policy's; where some are picked, backward holds zeros,
        their sum with the gradient, and the gradient
        """
        copies = 4 * scored.copies * scored.share
        if scored.chunked:
            spread = element + max(element, scored.rounding)  # the gradient, beside the logits or later
            return (spread * scored.share + copies) * self.vocab_size
        read = element + 8 * scored.share + (4 * scored.share if scored.reference else 0)
        picked = element * (2 + scored.share) if scored.picked else 0
        return (max(read, picked) + copies) * self.vocab_size

    def activations(
        self,
        sequence_length: int,
        *,
        element: int,
        flash: bool = True,
        recompute: bool,
        scored: Scored = EVERY,
        kept: Kept = ALL,
        autocast: bool = False,
        parts: int = 1,
    ) -> float:
        """Bytes kept per token: the embedding, the last norm (input and normalised) and the blocks between.

        With recomputation each block's input, and one block whole. Where it reads a source, a block keeps a
        norm (input and normalised), the sum, q and the output too
        """
        block = self.layer_activations(
            sequence_length, element=element, flash=flash, kept=kept, autocast=autocast, parts=parts
        )
        if self.num_encoder_layers:
            block += element * (3 * self.dim + 2 * self.width)
        blocks = block * max(1, self.num_layers - kept.skipped)
        if recompute:
            blocks = element * self.dim * self.num_layers + block
        ends = (3 * element + (8 if autocast else 0)) * self.dim  # the same in fp32, and a copy in 16 bits
        return ends + blocks + self.logits(element=element, scored=scored)

    def source_activations(
        self, sequence_length: int, *, element: int, recompute: bool, kept: Kept = ALL
    ) -> float:
        """Bytes kept per token of an encoder's source, with the keys and values that other blocks make."""
        if recompute:
            return element * (self.dim * self.num_encoder_layers + 2 * self.width)
        block = self.layer_activations(sequence_length, element=element, kept=kept)
        return block * self.num_encoder_layers + element * 2 * self.width * self.num_layers


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one stage takes; None where no formula says it."""

    flops: float | None = None
    memory: float | None = None
    """Peak bytes of tensors on one device."""
    disk: float | None = None
    seconds: float | None = None
    at_most: bool = False
    """Whether sequences were taken to be full, or all of them answers, as nothing is known of them."""


def training_cost(
    size: Size,
    *,
    tokens: float,
    sequence_length: int,
    padded_tokens: float,
    source_tokens: float = 0.0,
    accumulates: bool = False,
    adapters: int | None = None,
    kept: Kept = ALL,
    state_bytes: float | None = None,
    scored: Scored = EVERY,
    reference: bool = False,
    packed_bits: float | None = None,
    mixed: bool = False,
    held: int = 4,
    recompute: bool = False,
    chunk_rows: int = 0,
) -> Cost:
    """FLOPs, peak tensor bytes and size on disk of a training on one device in fp32 or mixed precision.

    A micro-batch holds `padded_tokens` positions at most, padding included, of which the loss reads those
    `scored`, and `source_tokens` beside them for an encoder; where a step `accumulates` several, gradients
    stand beside all activations, else they take their place. `adapters` are the only weights trained, None
    where all are; the optimizer keeps `state_bytes`, two moments where None; `reference` says whether a
    frozen copy of the model is held too; linear layers take `packed_bits` a weight where they are quantized;
    a trained weight takes `held` bytes between steps; a chunked loss has the softmax of `chunk_rows` in fp32
    """
    element = 2 if mixed else 4
    trained = size.parameters if adapters is None else adapters
    weights = size.parameters * (2 if reference else 1) + (adapters or 0)
    saved = 0.0 if packed_bits is None else size.linear_weights * (4 - packed_bits / 8)
    activations = padded_tokens * size.activations(
        sequence_length,
        element=element,
        recompute=recompute,
        scored=scored,
        kept=kept,
        autocast=mixed,
    )
    if source_tokens:
        activations += source_tokens * size.source_activations(
            sequence_length, element=element, recompute=recompute, kept=kept
        )
    if scored.chunked:
        activations += 4.0 * size.vocab_size * min(chunk_rows, scored.share * padded_tokens)
    states = 8.0 * trained if state_bytes is None else state_bytes
    gradients, beside = 4.0 * trained, (held - 4.0) * trained
    # Weights are whole, and gradients in fp32, while the optimizer steps; activations are gone by then.
    working = max(activations + beside + (gradients if accumulates else 0.0), gradients)
    return Cost(
        flops=tokens * size.flops_per_token(sequence_length, adapters=adapters),
        memory=4 * weights - saved + states + working,
        disk=4.0 * trained,
    )
