"""What the training of a node is (its lengths, its batch, what it keeps), and what formulas say it costs."""

from __future__ import annotations

from typing import Any

from harness.axes import MODEL_AXES
from harness.axes.alignment import Needs
from harness.compose import Cell
from harness.method import Choice
from harness.model.pattern import every_choice, layer_choices
from harness.plan.estimate import ALL, Cost, Scored, Size, training_cost
from harness.plan.node import Node
from harness.plan.problems import shapes_of
from harness.spec import ModelSpec

HALF = 0.5
"""Share of a window's positions that are its source, at most: sources and targets are both whole windows."""


MARGIN = 1.2
"""Of a bound, for what its formula leaves out."""


def memory_bound(node: Node) -> float:
    """Bytes of main memory that a stage takes at most, from shapes alone; 0 where nothing is known.

    A training at full sequences with a fifth for what its formula leaves out, or twice the weights in fp32 of
    a model that is only read; what runs on a GPU is bounded there
    """
    spec = node.cell.spec() if isinstance(node.cell, Cell) and node.device == "cpu" else None
    if spec is None:
        return 0.0
    if not trains(node) and "model" not in node.inputs:
        return 0.0
    model = shapes_of(node.cell)
    counted = None if model is None else counted_weights(model)
    if not trains(node):
        return 8.0 * Size.of(spec, gated=is_gated(node), counted=counted).parameters
    size = size_of(node, spec, counted=counted)
    source = HALF if splits_windows(node) else 0.0
    cost = node_cost(
        node,
        size,
        width=sequences_at_once(node),
        source=source,
        state_bytes=None if model is None else state_bytes(node, model, None),
    )
    assert cost.memory is not None
    return MARGIN * cost.memory


def node_cost(
    node: Node,
    size: Size,
    *,
    width: float,
    tokens: float = 0.0,
    source: float = 0.0,
    answers: float = 1.0,
    adapters: int | None = None,
    state_bytes: float | None = None,
    packed_bits: float | None = None,
    mixed: bool = False,
    held: int = 4,
) -> Cost:
    """What `training_cost` says of a node's settings and methods.

    Units: `width` is the positions of an item of a batch over `sequence_length`; of them an encoder reads the
    share `source`, and a loss on answers the share `answers`
    """
    from harness.ops.cross_entropy import chunk_rows

    settings, choice = node.config, node.choices.get("peft")
    peft: Any = choice.build() if adapters is not None and isinstance(choice, Choice) else None
    micro = settings.micro_batch_size or settings.batch_size
    length = longest_sequence(node)
    real, virtual = length * width, 0 if peft is None else peft.virtual_tokens()
    # Tuning hands an encoder the whole of every sequence, padded where the answer begins.
    sources = real * source if splits_windows(node) else real if size.num_encoder_layers else 0.0
    return training_cost(
        size,
        tokens=tokens,
        sequence_length=length,
        padded_tokens=micro * (real * (1 - source) + virtual),
        source_tokens=micro * sources,
        accumulates=micro < settings.batch_size,
        adapters=adapters,
        kept=ALL if peft is None else peft.kept,
        state_bytes=state_bytes,
        scored=scored(node, share=answers * real / (real + virtual)),
        reference=needs_reference(node) and adapters is None,
        packed_bits=packed_bits,
        mixed=mixed,
        held=held,
        recompute=settings.recompute,
        chunk_rows=chunk_rows(size.vocab_size, node.device),
    )


def trains(node: Node) -> bool:
    """Whether a stage runs the training loop; that of a quantizer may, and reads an optimizer then.

    One that extends a context trains where its option `train` says so or, null, its method is meant to.
    """
    if not isinstance(node.choices.get("optimizer"), Choice) or not hasattr(node.config, "budget"):
        return False  # a plugin's stage may train in its own way, which no formula here knows
    context: Any = node.choices.get("context")
    asked = getattr(node.config, "train", None)
    return context is None or bool(context.method.trains if asked is None else asked)


def longest_sequence(node: Node) -> int:
    """Tokens of the longest sequence a stage trains on: as it states, else the length it extends to."""
    stated: int | None = node.config.sequence_length
    if stated is not None:
        return stated
    context, spec = node.choices.get("context"), node.cell.spec()
    assert isinstance(context, Choice)
    assert spec is not None
    extends: Any = context.method
    return int(extends.extended(context.config, spec.max_length))


def size_of(node: Node, spec: ModelSpec, *, counted: tuple[int, int] | None) -> Size:
    """The size of the model that a node trains; what its layers keep is the mean over them."""
    shape = {axis: node.choices.get(axis) or node.cell.choice(axis) for axis in MODEL_AXES}
    chosen: dict[str, Any] = {axis: choice for axis, choice in shape.items() if isinstance(choice, Choice)}
    hidden = scores = 0.0
    of_layers = [layer_choices(spec, chosen, i) for i in range(len(spec.layer_pattern) or 1)]
    for index in range(spec.num_layers):
        layer: dict[str, Any] = of_layers[index % len(of_layers)]
        feed_forward, attention, position = (layer[a] for a in ("feed_forward", "attention", "position"))
        hidden += feed_forward.method.kept_values(feed_forward.config, spec)
        of_pairs = ((c.method, c.config) for c in (attention, position))
        length = longest_sequence(node)
        scores += max(method.kept_values(config, spec, length) for method, config in of_pairs)
    return Size.of(
        spec,
        gated=is_gated(node),
        counted=counted,
        hidden=hidden / spec.num_layers,
        scores=scores / spec.num_layers,
    )


def counted_weights(model: Any) -> tuple[int, int]:
    """Weights of a model of shapes: (multiplied, all)."""
    from harness.training.measure import matmul_weights

    return matmul_weights(model)[0], sum(parameter.numel() for parameter in model.parameters())


def is_gated(node: Node) -> bool:
    """Whether its feed-forward layers have three matrices."""
    choice: Any = node.choices.get("feed_forward") or node.cell.choice("feed_forward")
    return isinstance(choice, Choice) and bool(choice.method.gated)  # type: ignore[attr-defined]


def computes_in_half(node: Node) -> bool:
    """Whether it computes in another precision than fp32."""
    from torch import float32

    choice = node.choices.get("precision") or node.cell.choice("precision")
    return isinstance(choice, Choice) and choice.build().compute_dtype() != float32


def held(node: Node) -> int:
    """Bytes of a trained weight between steps."""
    choice = node.choices.get("precision") or node.cell.choice("precision")
    precision: Any = choice.build() if isinstance(choice, Choice) else None
    return 4 if precision is None else int(precision.bytes_per_weight())


def rounding_bytes(node: Node) -> int:
    """What a product's operands take while they are rounded to the format that it computes in."""
    choice = node.choices.get("precision") or node.cell.choice("precision")
    method: Any = choice.method if isinstance(choice, Choice) else None
    return 0 if method is None else int(method.rounding_bytes)


def packed_bits(node: Node, size: Size) -> float | None:
    """Bits of each weight of the model that a stage trains adapters of; None where it is not quantized."""
    for stage in node.cell.stages[: node.cell.stages.index(node.stage)]:
        choice = node.cell.choice("quantizer", stage=stage) if "quantizer" in node.cell.reads(stage) else None
        if choice is not None:
            return float(choice.build().bits_per_weight(size.dim, size.dim))
    return None


def state_bytes(node: Node, model: Any, adapters: int | None) -> float | None:
    """What the optimizer keeps; adapters, which are not on the model of shapes, count as one long vector."""
    choice = node.choices.get("optimizer") or node.cell.choice("optimizer")
    if not isinstance(choice, Choice):
        return None
    if adapters is not None:
        from torch import empty, nn

        model = nn.ParameterList([empty(adapters, device="meta")])
    return float(choice.build().state_bytes(model))


def keeps_scores(node: Node) -> bool:
    """Whether its attention or its positions keep something for each pair of tokens."""
    spec = node.cell.spec()
    shape = {axis: node.choices.get(axis) or node.cell.choice(axis) for axis in MODEL_AXES}
    chosen = {axis: choice for axis, choice in shape.items() if isinstance(choice, Choice)}
    of_layers = [] if spec is None else every_choice(spec, chosen)
    return any(getattr(choice.method, "keeps_scores", False) for choice in (*chosen.values(), *of_layers))


def sequences_at_once(node: Node) -> float:
    """Full sequences that an item of a batch is at most: the parts of a pair, or a prompt and its sample."""
    choice = node.choices.get("alignment")
    if isinstance(choice, Choice):
        method: Any = choice.method
        if method.needs is Needs.preferences:
            return float(len(method.parts))
        return float(1 + node.config.max_new_tokens / longest_sequence(node))
    return 2.0 if node.kind == "reward" or splits_windows(node) else 1.0


def splits_windows(node: Node) -> bool:
    """Whether its windows become sources for an encoder and targets of other lengths."""
    choice: Any = node.choices.get("architecture")
    encodes = isinstance(choice, Choice) and choice.method.has_encoder()  # type: ignore[attr-defined]
    return encodes and node.maker.splits_windows


def scored(node: Node, *, share: float) -> Scored:
    """Which logits its loss reads; a reward learns from none, and samples met their reference before."""
    choice = node.choices.get("alignment")
    pairs = isinstance(choice, Choice) and getattr(choice.method, "needs", None) is Needs.preferences
    stabilizers: Any = node.choices.get("stabilizer") or ()
    return Scored(
        share=share,
        chunked=not node.maker.scores_answers,
        picked=isinstance(choice, Choice),
        reference=pairs and needs_reference(node),
        copies=sum(stabilizer.method.logit_copies for stabilizer in stabilizers),
        rounding=rounding_bytes(node),
    )


def needs_reference(node: Node) -> bool:
    """Whether an alignment keeps the model it started from beside the one it trains."""
    choice = node.choices.get("alignment")
    return isinstance(choice, Choice) and bool(getattr(choice.method, "needs_reference", False))
