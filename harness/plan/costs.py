"""What every stage of a plan costs: formulas for trainings, and what the store has measured so far."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from statistics import median
from typing import Any

from harness.axes import MODEL_AXES
from harness.axes.alignment import Needs
from harness.compose import Cell
from harness.errors import ConfigError, IncompatibleError
from harness.method import Choice
from harness.model.pattern import every_choice
from harness.plan.estimate import ALL, Cost, Scored, Size, training_cost
from harness.plan.graph import Node
from harness.plan.plan import Plan
from harness.plan.probe import probe_speed
from harness.plan.problems import shapes_of
from harness.store import Artifact, Store

BYTES_PER_TOKEN = {320: 1.58, 512: 2.07, 1024: 2.58, 2048: 2.99, 4096: 3.34, 8192: 3.61, 32000: 4.0}
"""Of byte-level BPE by its vocabulary, measured on the embedded corpus (32,000: English, GPT-2's order)."""
LENGTH_AXES = (
    *("architecture", "objective", "curriculum", "instruction", "instruction_strategy"),
    *("feedback", "alignment"),
)
"""Axes that say how long a stage's sequences are, as far as `sequence_length` does not."""
GATED = ("swiglu", "geglu")
HALF = 0.5
"""Share of a window's positions that are its source, at most: sources and targets are both whole windows."""
MARGIN = 1.2
"""Of a bound, for what its formula leaves out."""
WINDOWS = ("pretrain", "extend")
"""Stages that train on whole windows of text, which are full."""
ANSWERS_ONLY = ("align", "reward")
"""Stages whose losses read the logits of labelled positions only; others read those of all positions."""


@dataclass(kw_only=True)
class Known:
    """What the artifacts of a store have measured: medians by what they depend on.

    Units: seconds, bytes, FLOP/s; lengths are shares of a stage's `sequence_length`
    """

    fill: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Tokens that a sequence held, by `data_key`; of a pair, both of its sequences together."""
    width: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Positions, padding included, that a sequence took of the largest micro-batch; by `data_key`."""
    scored: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Share of these positions that are labelled; by `data_key`."""
    source: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Share of these positions that an encoder reads; by `data_key`."""
    bytes_per_token: dict[str, list[float]] = field(default_factory=dict)
    """By the tokenizer's key."""
    bytes_per_position: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    """Of text, where a window may become more positions than it has tokens; by `data_key`."""
    speed: dict[str, list[float]] = field(default_factory=dict)
    """By stage; `` for all."""
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """By stage and part."""
    disk: dict[str, list[float]] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> Known:
        """Everything that the store's artifacts say."""
        known = cls()
        for key in store.all_keys():
            artifact = store.find(key)
            if artifact is not None:
                known.add(artifact, tokenizer=tokenizer_of(artifact.inputs, partial(_stored_inputs, store)))
        return known

    def add(self, artifact: Artifact, *, tokenizer: str) -> None:
        """Learn from one artifact, whose text was read with the tokenizer of that key."""
        facts, meta = artifact.facts, artifact.meta
        title = f"{artifact.stage} {meta.get('part', '')}".strip()
        if meta.get("seconds"):
            self.seconds.setdefault(title, []).append(meta["seconds"])
        self.disk.setdefault(title, []).append(sum(f["size"] for f in meta.get("files", {}).values()))
        if artifact.kind == "tokenizer" and facts.get("bytes_per_token"):
            self.bytes_per_token.setdefault(artifact.key, []).append(facts["bytes_per_token"])
        if not facts.get("flops") or not facts.get("seconds"):
            return
        for stage in (artifact.stage, ""):
            self.speed.setdefault(stage, []).append(facts["flops"] / facts["seconds"])
        key = data_key(artifact.stage, meta.get("material", {}), tokenizer=tokenizer)
        full = facts.get("sequences", 0) * facts.get("sequence_length", 0)
        if facts.get("bytes") and facts.get("tokens"):
            self.bytes_per_position.setdefault(key, []).append(facts["bytes"] / facts["tokens"])
            if facts["tokens"] <= full:
                self.bytes_per_token.setdefault(f"trained {tokenizer}", []).append(
                    facts["bytes"] / facts["tokens"]
                )
        if full:
            self.fill.setdefault(key, []).append(facts["tokens"] / full)
            if facts.get("padded_tokens"):
                full = (facts["micro_batch_size"] or facts["batch_size"]) * facts["sequence_length"]
                self.width.setdefault(key, []).append(facts["padded_tokens"] / full)
            if facts.get("source_tokens"):
                self.source.setdefault(key, []).append(facts["source_tokens"] / facts["padded_tokens"])
            if facts.get("scored_tokens"):
                self.scored.setdefault(key, []).append(facts["scored_tokens"] / facts["padded_tokens"])


def data_key(stage: str, material: Mapping[str, Any], *, tokenizer: str) -> tuple[str, ...]:
    """What the length of sequences depends on: their bounds, the data, and who cuts them into tokens."""
    nodes, config = material.get("nodes", {}), material.get("config", {})
    bounds = {name: config.get(name) for name in ("sequence_length", "max_new_tokens")}
    data = {axis: nodes[axis] for axis in LENGTH_AXES if axis in nodes}
    return stage, tokenizer, json.dumps([bounds, data], sort_keys=True)


def tokenizer_of(inputs: Mapping[str, str], inputs_of: Callable[[str], Mapping[str, str] | None]) -> str:
    """Key of the tokenizer that a stage reads with: its own input, or that of the model it starts from."""
    while "tokenizer" not in inputs and "model" in inputs:
        made = inputs_of(inputs["model"])
        if made is None:
            return inputs["model"]  # from outside, and brings its own
        inputs = made
    return inputs.get("tokenizer", "")


def _stored_inputs(store: Store, key: str) -> Mapping[str, str] | None:
    found = store.find(key)
    return None if found is None else found.inputs


class Costs:
    """Estimates for the stages of one plan."""

    def __init__(self, made: Plan, *, known: Known | None = None, probe: int = 0) -> None:
        """`probe`: free bytes, to time a few steps of each training's model that fits them; 0 = do not."""
        self._made = made
        self._probe = probe
        self._probed: dict[str, float] = {}
        self._counted: dict[int, tuple[int, int]] = {}
        """Weights of a model by its identity; `shapes_of` keeps models."""
        self._known = known or Known.of(made.graph.store)

    def of(self, node: Node) -> Cost:
        """What a stage costs, as far as a formula or an earlier run says."""
        known = self._known
        cost = self._training(node) or Cost()
        speed = known.speed.get(node.stage) or known.speed.get("") or []
        if cost.flops is not None and (cost.memory or 0.0) < self._probe:
            speed = [self._probed_speed(node)]
        if cost.flops is not None and speed:
            return replace(cost, seconds=cost.flops / median(speed))
        seconds, disk = known.seconds.get(node.title), known.disk.get(node.title)
        return replace(
            cost,
            seconds=median(seconds) if seconds and cost.flops is None else None,
            disk=median(disk) if disk and cost.disk is None else cost.disk,
        )

    def _probed_speed(self, node: Node) -> float:
        """Of this training's model and length, probed once."""
        built, spec = self._built(node.cell), node.cell.spec()
        assert built is not None
        assert spec is not None
        length = longest_sequence(node)
        shape = [node.cell.choice(axis) for axis in MODEL_AXES]
        name = f"{spec} {shape} {length} {node.config.batch_size} {node.device}"
        if name not in self._probed:
            flops = Size.of(spec, counted=built[1]).flops_per_token(length)
            self._probed[name] = probe_speed(node, sequence_length=length, flops_per_token=flops)
        return self._probed[name]

    def _training(self, node: Node) -> Cost | None:
        """Of a stage that trains a model whose size is known."""
        spec = node.cell.spec()
        if not _trains(node) or spec is None:
            return None
        built = self._built(node.cell)
        if built is None:
            return None
        model, counted = built
        size = Size.of(spec, gated=_method(node, "feed_forward") in GATED, counted=counted)
        adapters = self._adapters(node, model)
        full = _sequences_at_once(node)
        fill, width = self._learned(self._known.fill, node), self._learned(self._known.width, node)
        tokens = self._tokens(
            node, size.flops_per_token(longest_sequence(node), adapters=adapters), fill or full
        )
        if tokens is None:
            return None
        answers = self._answers(node)
        source = self._learned(self._known.source, node) if _splits_windows(node) else 0.0
        cost = _training_cost(
            node,
            size,
            tokens=tokens,
            width=width or full,
            source=HALF if source is None else source,
            answers=answers or 1.0,
            adapters=adapters,
            state_bytes=_state_bytes(node, model, adapters),
            packed_bits=_packed_bits(node, size),
            mixed=_method(node, "precision") not in ("", "fp32"),
            held=_held(node),
            flash=not _keeps_scores(node),
        )
        windows = node.stage.partition("@")[0] in WINDOWS and not _splits_windows(node)
        at_most = None in (fill, width, source, answers) and not windows
        if (_keeps_scores(node) or source is None) and cost.memory is not None:
            return replace(cost, memory=MARGIN * cost.memory, at_most=True)
        return replace(cost, at_most=at_most)

    def _tokens(self, node: Node, flops_per_token: float, fill: float) -> float | None:
        """Tokens that a budget buys; None where it does not say (seconds, epochs)."""
        settings = node.config
        unit, amount = settings.budget.unit.name, settings.budget.amount
        return {
            "tokens": amount,
            "steps": amount * settings.batch_size * longest_sequence(node) * fill,
            "flops": amount / flops_per_token,
            "bytes": amount / self._bytes_per_position(node, fill),
        }.get(unit)

    def _learned(self, values: Mapping[tuple[str, ...], list[float]], node: Node) -> float | None:
        """What earlier trainings on such data measured."""
        found = values.get(data_key(node.stage, node.material, tokenizer=self._tokenizer(node)))
        return median(found) if found else None

    def _answers(self, node: Node) -> float | None:
        """Share of positions whose logits the loss reads; None where it is a part that nobody measured."""
        if node.stage.partition("@")[0] not in ANSWERS_ONLY:
            return 1.0
        return self._learned(self._known.scored, node)

    def _tokenizer(self, node: Node) -> str:
        nodes = self._made.graph.nodes
        return tokenizer_of(node.inputs, lambda key: nodes[key].inputs if key in nodes else None)

    def _bytes_per_position(self, node: Node, fill: float) -> float:
        """As trainings on such data measured it, else of the text that sources and targets are cut from."""
        measured = self._learned(self._known.bytes_per_position, node)
        return measured or self._bytes_per_token(node) / (fill if _splits_windows(node) else 1.0)

    def _bytes_per_token(self, node: Node) -> float:
        """As trainings with this tokenizer measured it, or the tokenizer did, else by its vocabulary."""
        key = self._tokenizer(node)
        found = self._known.bytes_per_token
        measured = found.get(f"trained {key}") or found.get(key)
        if measured:
            return median(measured)
        choice = node.cell.choice("tokenizer")
        if choice is not None and choice.method.name == "byte":
            return 1.0
        return bytes_per_token(getattr(choice.config, "vocab_size", 1024) if choice is not None else 32000)

    def _built(self, cell: Cell) -> tuple[Any, tuple[int, int]] | None:
        """A model of shapes without data, and its weights: (multiplied, all)."""
        from harness.training.measure import matmul_weights

        try:
            model = shapes_of(cell)
        except (ConfigError, IncompatibleError):
            return None  # the plan says why
        if model is None:
            return None
        if id(model) not in self._counted:
            everything = sum(parameter.numel() for parameter in model.parameters())
            self._counted[id(model)] = matmul_weights(model)[0], everything
        return model, self._counted[id(model)]

    def _adapters(self, node: Node, model: Any) -> int | None:
        """Weights that a PEFT method adds and trains; None where the model's own are trained."""
        choice = node.choices.get("peft")
        if not isinstance(choice, Choice) or choice.method.name == "full":
            return None
        expected = choice.build().trainable_parameters(model)
        return 0 if expected is None else int(expected)


def memory_bound(node: Node) -> float:
    """Bytes of main memory that a stage takes at most, from shapes alone; 0 where nothing is known.

    A training at full sequences with a fifth for what its formula leaves out, or twice the weights in fp32 of
    a model that is only read; what runs on a GPU is bounded there
    """
    spec = node.cell.spec() if isinstance(node.cell, Cell) and node.device == "cpu" else None
    if spec is None:
        return 0.0
    size = Size.of(spec, gated=_method(node, "feed_forward") in GATED)
    if not _trains(node):
        return 8.0 * size.parameters if "model" in node.inputs else 0.0
    source = HALF if _splits_windows(node) else 0.0
    cost = _training_cost(
        node, size, width=_sequences_at_once(node), source=source, flash=not _keeps_scores(node)
    )
    assert cost.memory is not None
    return MARGIN * cost.memory


def _training_cost(
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
    flash: bool = True,
) -> Cost:
    """What `training_cost` says of a node's settings and methods.

    Units: `width` is the positions of an item of a batch over `sequence_length`; of them an encoder reads the
    share `source`, and a loss on answers the share `answers`
    """
    settings, choice = node.config, node.choices.get("peft")
    peft: Any = choice.build() if adapters is not None and isinstance(choice, Choice) else None
    micro = settings.micro_batch_size or settings.batch_size
    length = longest_sequence(node)
    real, virtual = length * width, 0 if peft is None else peft.virtual_tokens()
    # Tuning hands an encoder the whole of every sequence, padded where the answer begins.
    sources = real * source if _splits_windows(node) else real if size.num_encoder_layers else 0.0
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
        scored=_scored(node, share=answers * real / (real + virtual)),
        reference=_needs_reference(node) and adapters is None,
        packed_bits=packed_bits,
        mixed=mixed,
        held=held,
        recompute=settings.recompute,
        flash=flash,
    )


def _held(node: Node) -> int:
    """Bytes of a trained weight between steps."""
    choice = node.choices.get("precision")
    precision: Any = choice.build() if isinstance(choice, Choice) else None
    return 4 if precision is None else int(precision.bytes_per_weight())


def bytes_per_token(vocab_size: int) -> float:
    """Of a tokenizer that nobody has measured: between the sizes of BYTES_PER_TOKEN, linear in the log."""
    sizes = sorted(BYTES_PER_TOKEN)
    size = min(max(vocab_size, sizes[0]), sizes[-1])
    right = next(s for s in sizes if s >= size)
    left = max((s for s in sizes if s <= size), default=right)
    if left == right:
        return BYTES_PER_TOKEN[left]
    share = math.log(size / left) / math.log(right / left)
    return BYTES_PER_TOKEN[left] + share * (BYTES_PER_TOKEN[right] - BYTES_PER_TOKEN[left])


def _trains(node: Node) -> bool:
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


def _method(node: Node, axis: str) -> str:
    choice = node.choices.get(axis) or node.cell.choice(axis)
    return choice.method.name if isinstance(choice, Choice) else ""


def _packed_bits(node: Node, size: Size) -> float | None:
    """Bits of each weight of the model that a stage trains adapters of; None where it is not quantized."""
    for stage in node.cell.stages[: node.cell.stages.index(node.stage)]:
        choice = node.cell.choice("quantizer", stage=stage) if stage.startswith("quantize") else None
        if choice is not None:
            return float(choice.build().bits_per_weight(size.dim, size.dim))
    return None


def _state_bytes(node: Node, model: Any, adapters: int | None) -> float | None:
    """What the optimizer keeps; adapters, which are not on the model of shapes, count as one long vector."""
    choice = node.choices.get("optimizer") or node.cell.choice("optimizer")
    if not isinstance(choice, Choice):
        return None
    if adapters is not None:
        from torch import empty, nn

        model = nn.ParameterList([empty(adapters, device="meta")])
    return float(choice.build().state_bytes(model))


def _keeps_scores(node: Node) -> bool:
    """Whether its attention or its positions keep something for each pair of tokens."""
    spec = node.cell.spec()
    shape = {axis: node.choices.get(axis) or node.cell.choice(axis) for axis in MODEL_AXES}
    chosen = {axis: choice for axis, choice in shape.items() if isinstance(choice, Choice)}
    of_layers = [] if spec is None else every_choice(spec, chosen)
    return any(getattr(choice.method, "keeps_scores", False) for choice in (*chosen.values(), *of_layers))


def _sequences_at_once(node: Node) -> float:
    """Full sequences that an item of a batch is at most: the parts of a pair, or a prompt and its sample."""
    choice = node.choices.get("alignment")
    if isinstance(choice, Choice):
        method: Any = choice.method
        if method.needs is Needs.preferences:
            return float(len(method.parts))
        return float(1 + node.config.max_new_tokens / longest_sequence(node))
    return 2.0 if node.kind == "reward" or _splits_windows(node) else 1.0


def _splits_windows(node: Node) -> bool:
    """Whether its windows become sources for an encoder and targets of other lengths."""
    choice: Any = node.choices.get("architecture")
    encodes = isinstance(choice, Choice) and choice.method.has_encoder()  # type: ignore[attr-defined]
    return encodes and node.stage.partition("@")[0] == "pretrain"


def _scored(node: Node, *, share: float) -> Scored:
    """Which logits its loss reads; a reward learns from none, and samples met their reference before."""
    choice = node.choices.get("alignment")
    pairs = isinstance(choice, Choice) and getattr(choice.method, "needs", None) is Needs.preferences
    return Scored(
        share=share,
        picked=isinstance(choice, Choice),
        reference=pairs and _needs_reference(node),
    )


def _needs_reference(node: Node) -> bool:
    """Whether an alignment keeps the model it started from beside the one it trains."""
    choice = node.choices.get("alignment")
    return isinstance(choice, Choice) and bool(getattr(choice.method, "needs_reference", False))
