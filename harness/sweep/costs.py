"""What every stage of a plan costs: formulas for trainings, and what the store has measured so far."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

from harness.axes import MODEL_AXES
from harness.compose import Cell
from harness.errors import ConfigError, IncompatibleError
from harness.method import Choice
from harness.problems import shapes_of
from harness.store import Artifact, Store
from harness.sweep import machine
from harness.sweep.estimate import Cost, Size, training_cost
from harness.sweep.graph import Node
from harness.sweep.plan import Plan
from harness.sweep.probe import probe_speed

BYTES_PER_TOKEN = {320: 1.58, 512: 2.07, 1024: 2.58, 2048: 2.99, 4096: 3.34, 8192: 3.61, 32000: 4.0}
"""Of byte-level BPE by its vocabulary, measured on the embedded corpus (32,000: English, GPT-2's order)."""
STATE = {"sgd": 4.0, "lion": 4.0, "muon": 4.0, "adam8bit": 2.0, "adafactor": 0.0}
"""Bytes of state an optimizer keeps for each trained weight, where they are not AdamW's 8."""
NOT_COVERED = {
    "attention": ("linear", "retention", "sparse_factorized"),
    "position": ("relative_t5", "relative_xl"),
}
"""Methods that keep other activations than the formula counts: no memory is estimated for them."""
WITHOUT_FORMULA = ("encoder_decoder",)
"""Architectures whose windows become sources and targets of other lengths: nothing is estimated for them."""
GATED = ("swiglu", "geglu")


@dataclass(kw_only=True)
class Known:
    """What the artifacts of a store have measured: medians by what they depend on.

    Units: seconds, bytes, FLOP/s; `fill` is the share of a full sequence that holds tokens
    """

    fill: dict[tuple[str, ...], list[float]] = field(default_factory=dict)
    bytes_per_token: dict[str, list[float]] = field(default_factory=dict)
    """By the tokenizer's key."""
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
                known.add(artifact)
        return known

    def add(self, artifact: Artifact) -> None:
        """Learn from one artifact."""
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
        if facts.get("bytes") and facts.get("tokens"):
            key = artifact.inputs.get("tokenizer", "")
            self.bytes_per_token.setdefault(f"trained {key}", []).append(facts["bytes"] / facts["tokens"])
        if facts.get("sequences"):
            nodes = meta.get("material", {}).get("nodes", {})
            full = facts["sequences"] * facts["sequence_length"]
            data = fill_key(artifact.stage, facts["sequence_length"], nodes)
            self.fill.setdefault(data, []).append(facts["tokens"] / full)


def fill_key(stage: str, sequence_length: int, nodes: Mapping[str, Any]) -> tuple[str, ...]:
    """What the length of sequences depends on: their bound and the data."""
    data = {
        axis: nodes[axis] for axis in ("instruction", "instruction_strategy", "feedback") if axis in nodes
    }
    return stage, str(sequence_length), json.dumps(data, sort_keys=True)


class Costs:
    """Estimates for the stages of one plan; `probe` times a few steps of each training's model."""

    def __init__(self, made: Plan, *, known: Known | None = None, probe: bool = False) -> None:
        self._made = made
        self._probe = probe
        self._probed: dict[str, float] = {}
        self._known = known or Known.of(made.graph.store)

    def of(self, node: Node) -> Cost:
        """What a stage costs, as far as a formula or an earlier run says."""
        known = self._known
        cost = self._training(node) or Cost()
        speed = known.speed.get(node.stage) or known.speed.get("") or []
        fits = (cost.memory or 0.0) < machine.available_memory()
        if cost.flops is not None and self._probe and fits:
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
        length = node.config.sequence_length
        shape = [node.cell.choice(axis) for axis in MODEL_AXES]
        name = f"{spec} {shape} {length} {node.config.batch_size} {node.device}"
        if name not in self._probed:
            flops = Size.of(spec, counted=built[1]).flops_per_token(length)
            self._probed[name] = probe_speed(node, flops_per_token=flops)
        return self._probed[name]

    def _training(self, node: Node) -> Cost | None:
        """Of a stage that trains a model whose size is known."""
        settings, spec = node.config, node.cell.spec()
        if not hasattr(settings, "budget") or spec is None:
            return None
        built = self._built(node.cell)
        if built is None or _method(node, "architecture") in WITHOUT_FORMULA:
            return None
        model, counted = built
        size = Size.of(spec, gated=_method(node, "feed_forward") in GATED, counted=counted)
        adapters = self._adapters(node, model)
        length, batch = settings.sequence_length, settings.batch_size
        sequences = self._fill(node)
        tokens = self._tokens(node, size.flops_per_token(length, adapters=adapters), sequences or 1.0)
        if tokens is None:
            return None
        cost = training_cost(
            size,
            tokens=tokens,
            sequence_length=length,
            micro_batch=settings.micro_batch_size or batch,
            adapters=adapters,
            state=STATE.get(_method(node, "optimizer"), 8.0),
            reference=_holds_reference(node) and adapters is None,
            mixed=_method(node, "precision") not in ("", "fp32"),
            recompute=settings.recompute,
        )
        covered = all(_method(node, axis) not in names for axis, names in NOT_COVERED.items())
        counts_sequences = settings.budget.unit.name in ("steps", "epochs")
        at_most = sequences is None and counts_sequences and node.stage.partition("@")[0] != "pretrain"
        return replace(cost, memory=cost.memory if covered else None, at_most=at_most)

    def _tokens(self, node: Node, flops_per_token: float, fill: float) -> float | None:
        """Tokens that a budget buys; None where it does not say (seconds, epochs)."""
        settings = node.config
        unit, amount = settings.budget.unit.name, settings.budget.amount
        return {
            "tokens": amount,
            "steps": amount * settings.batch_size * settings.sequence_length * fill,
            "flops": amount / flops_per_token,
            "bytes": amount / self._bytes_per_token(node),
        }.get(unit)

    def _fill(self, node: Node) -> float | None:
        """Share of full sequences that holds tokens, as an earlier stage on such data measured it."""
        found = self._known.fill.get(
            fill_key(node.stage, node.config.sequence_length, node.material["nodes"])
        )
        return median(found) if found else None

    def _bytes_per_token(self, node: Node) -> float:
        """As trainings with this tokenizer measured it, or the tokenizer did, else by its vocabulary."""
        key = next(
            (k for k in (node.key, *self._made.graph.ancestors(node.key)) if self._kind(k) == "tokenizer"), ""
        )
        found = self._known.bytes_per_token
        measured = found.get(f"trained {key}") or found.get(key)
        if measured:
            return median(measured)
        choice = node.cell.choice("tokenizer")
        if choice is not None and choice.method.name == "byte":
            return 1.0
        return bytes_per_token(getattr(choice.config, "vocab_size", 1024) if choice is not None else 32000)

    def _kind(self, key: str) -> str:
        node = self._made.graph.nodes.get(key)
        return "" if node is None else node.kind

    def _built(self, cell: Cell) -> tuple[Any, tuple[int, int]] | None:
        """A model of shapes without data, and its weights: (multiplied, all)."""
        from harness.training.measure import matmul_weights

        try:
            model = shapes_of(cell)
        except (ConfigError, IncompatibleError):
            return None  # the plan says why
        if model is None:
            return None
        spec = cell.spec()
        assert spec is not None
        everything = sum(parameter.numel() for parameter in model.parameters())
        head = spec.vocab_size * spec.dim if spec.tie_embeddings else 0  # an embedding here, a product there
        return model, (matmul_weights(model)[0] + head, everything)

    def _adapters(self, node: Node, model: Any) -> int | None:
        """Weights that a PEFT method adds and trains; None where the model's own are trained."""
        choice = node.choices.get("peft")
        if not isinstance(choice, Choice) or choice.method.name == "full":
            return None
        expected = choice.build().trainable_parameters(model)
        return 0 if expected is None else int(expected)


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


def _method(node: Node, axis: str) -> str:
    choice = node.choices.get(axis) or node.cell.choice(axis)
    return choice.method.name if isinstance(choice, Choice) else ""


def _holds_reference(node: Node) -> bool:
    """Whether an alignment keeps the model it started from beside the one it trains."""
    choice = node.choices.get("alignment")
    return isinstance(choice, Choice) and bool(getattr(choice.method, "needs_reference", False))
