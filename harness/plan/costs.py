"""What every stage of a plan costs: by formula for trainings, else as the store has measured it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

from harness.axes import MODEL_AXES
from harness.axes.tokenizer import Tokenizer
from harness.compose import Cell
from harness.errors import ConfigError, IncompatibleError
from harness.method import Choice
from harness.plan.estimate import Cost, Size
from harness.plan.measured import Known, bytes_per_token, data_key, tokenizer_of
from harness.plan.node import Node
from harness.plan.plan import Plan
from harness.plan.probe import probe_speed
from harness.plan.problems import shapes_of
from harness.plan.spread import Share, share
from harness.plan.trainings import (
    HALF,
    MARGIN,
    computes_in_half,
    counted_weights,
    held,
    keeps_scores,
    longest_sequence,
    node_cost,
    packed_bits,
    scored,
    sequences_at_once,
    size_of,
    splits_windows,
    state_bytes,
    trains,
)


class Costs:
    """Estimates for the stages of one plan."""

    def __init__(self, made: Plan, *, known: Known | None = None, probe: int = 0) -> None:
        """`probe`: free bytes, to time a few steps of each training's model that fits them; 0 = do not."""
        self._made = made
        self._probe = probe
        self._probed: dict[str, float] = {}
        self._counted: dict[int, tuple[int, int]] = {}
        """Weights of a model by its identity; `shapes_of` keeps models."""
        self._states: dict[tuple[int, str], float | None] = {}
        """What an optimizer keeps of a model, by that identity and the optimizer with its options."""
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
        if not trains(node) or spec is None:
            return None
        built = self._built(node.cell)
        if built is None:
            return None
        model, counted = built
        size = size_of(node, spec, counted=counted)
        adapters = self._adapters(node, model)
        full = sequences_at_once(node)
        fill, width = self._learned(self._known.fill, node), self._learned(self._known.width, node)
        tokens = self._tokens(
            node, size.flops_per_token(longest_sequence(node), adapters=adapters), fill or full
        )
        if tokens is None:
            return None
        answers = self._answers(node)
        source = self._learned(self._known.source, node) if splits_windows(node) else 0.0
        cost = node_cost(
            node,
            size,
            tokens=tokens,
            width=width or full,
            source=HALF if source is None else source,
            answers=answers or 1.0,
            adapters=adapters,
            state_bytes=self._state_bytes(node, model, adapters),
            packed_bits=packed_bits(node, size),
            mixed=computes_in_half(node),
            held=held(node),
        )
        each = self.share(node)
        if each is not None:
            cost = replace(cost, memory=each.memory)
        windows = node.maker.full_windows and not splits_windows(node)
        at_most = None in (fill, width, source, answers) and not windows
        if (keeps_scores(node) or source is None) and cost.memory is not None:
            return replace(cost, memory=MARGIN * cost.memory, at_most=True)
        return replace(cost, at_most=at_most)

    def share(self, node: Node) -> Share | None:
        """What each of several processes of a training takes; None where there is one, or no formula."""
        choice = node.choices.get("parallelism")
        built = self._built(node.cell) if isinstance(choice, Choice) and trains(node) else None
        spec = node.cell.spec()
        if built is None or spec is None or choice.config.world_size == 1:  # type: ignore[union-attr]
            return None
        model, counted = built
        settings, parallelism = node.config, choice.build()  # type: ignore[union-attr]
        if self._adapters(node, model) is not None:
            return None
        return share(
            size_of(node, spec, counted=counted),
            parallelism.spread(),
            batch_size=settings.batch_size,
            micro_batch_size=settings.micro_batch_size,
            sequence_length=longest_sequence(node),
            mixed=computes_in_half(node),
            recompute=settings.recompute,
            state_bytes=self._state_bytes(node, model, None),
            scored=scored(node, share=1.0),
        )

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
        measured = self._learned(self._known.scored, node)
        if node.maker.scores_answers:
            return measured
        architecture: Any = node.choices.get("architecture") or node.cell.choice("architecture")
        encodes = isinstance(architecture, Choice) and architecture.method.has_encoder()  # type: ignore[attr-defined]
        # Where something encodes, positions were counted together with those of sources.
        return 1.0 if measured is None or encodes else measured

    def _tokenizer(self, node: Node) -> str:
        nodes = self._made.graph.nodes
        return tokenizer_of(node.inputs, lambda key: nodes[key].inputs if key in nodes else None)

    def _bytes_per_position(self, node: Node, fill: float) -> float:
        """As trainings on such data measured it, else of the text that sources and targets are cut from."""
        measured = self._learned(self._known.bytes_per_position, node)
        return measured or self._bytes_per_token(node) / (fill if splits_windows(node) else 1.0)

    def _bytes_per_token(self, node: Node) -> float:
        """As trainings with this tokenizer measured it, or the tokenizer did, else by its vocabulary."""
        key = self._tokenizer(node)
        found = self._known.bytes_per_token
        measured = found.get(f"trained {key}") or found.get(key)
        if measured:
            return median(measured)
        choice = node.cell.choice("tokenizer")
        if choice is None:
            return bytes_per_token(Tokenizer.typical_bytes_per_token, 32000)
        method: Any = choice.method
        fixed = method.bytes_per_token(choice.config)
        if fixed is not None:
            return float(fixed)
        return bytes_per_token(method.typical_bytes_per_token, choice.config.vocab_size)

    def _built(self, cell: Cell) -> tuple[Any, tuple[int, int]] | None:
        """A model of shapes without data, and its weights: (multiplied, all)."""
        try:
            model = shapes_of(cell)
        except (ConfigError, IncompatibleError):
            return None  # the plan says why
        if model is None:
            return None
        if id(model) not in self._counted:
            self._counted[id(model)] = counted_weights(model)
        return model, self._counted[id(model)]

    def _state_bytes(self, node: Node, model: Any, adapters: int | None) -> float | None:
        if adapters is not None:
            return state_bytes(node, model, adapters)
        key = id(model), str(node.choices.get("optimizer") or node.cell.choice("optimizer"))
        if key not in self._states:
            self._states[key] = state_bytes(node, model, None)
        return self._states[key]

    def _adapters(self, node: Node, model: Any) -> int | None:
        """Weights that a PEFT method adds and trains; None where the model's own are trained."""
        choice = node.choices.get("peft")
        if not isinstance(choice, Choice) or choice.method.delta == "weights":  # type: ignore[attr-defined]
            return None
        expected = choice.build().trainable_parameters(model)
        return 0 if expected is None else int(expected)
