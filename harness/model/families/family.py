"""What a family states: its shape and methods, and how its tensors map to ours in both directions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from harness.errors import IncompatibleError
from harness.model.choices import from_plain, plain_node
from harness.model.pattern import layer_choices
from harness.spec import ModelSpec

RARE = (
    "layer_pattern",
    "logit_cap",
    "attention_cap",
    "embedding_scale",
    "embedding_dim",
    "norm_offset",
    "rotary_dim",
)
"""Fields of a shape that few families know."""
ATTENTIONS = ("full", "multi_query", "grouped_query", "flash", "paged", "sliding_window")
"""Attention methods that families of grouped queries and windows can write."""
Methods = dict[str, dict[str, Any]]
"""{axis: {method: name, option: value}}."""


def _one(tensor: Tensor) -> tuple[Tensor, ...]:
    return (tensor,)


def _same(*tensors: Tensor) -> Tensor:
    return tensors[0]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """One tensor of theirs, and the tensors of ours that it is made of."""

    theirs: str
    ours: tuple[str, ...]
    split: Callable[[Tensor], tuple[Tensor, ...]] = field(default=_one)
    join: Callable[..., Tensor] = field(default=_same)


def same(theirs: str, ours: str) -> Rule:
    """The same tensor under another name."""
    return Rule(theirs=theirs, ours=(ours,))


def layer_rules(theirs: str, ours: str, *, bias: bool) -> Iterator[Rule]:
    """Weight and, where there is one, bias of a layer."""
    yield same(f"{theirs}.weight", f"{ours}.weight")
    if bias:
        yield same(f"{theirs}.bias", f"{ours}.bias")


def fused_rules(theirs: str, ours: str, *, num_heads: int, bias: bool) -> Iterator[Rule]:
    """Query, key and value of each head stored together (GPT-NeoX, BLOOM): rows are N, 3, H."""
    names = ("q_proj", "k_proj", "v_proj")

    def split(x: Tensor) -> tuple[Tensor, ...]:
        parts = x.reshape(num_heads, 3, -1, *x.shape[1:])
        return tuple(parts[:, i].reshape(-1, *x.shape[1:]) for i in range(3))

    def join(*parts: Tensor) -> Tensor:
        heads = [part.reshape(num_heads, -1, *part.shape[1:]) for part in parts]
        return torch.stack(heads, dim=1).reshape(-1, *parts[0].shape[1:])

    for suffix in ("weight", "bias") if bias else ("weight",):
        yield Rule(
            theirs=f"{theirs}.{suffix}",
            ours=tuple(f"{ours}.{name}.{suffix}" for name in names),
            split=split,
            join=join,
        )


def fused_block_rules(
    theirs: str, ours: str, *, attention: str, num_heads: int, bias: bool
) -> Iterator[Rule]:
    """One block of GPT-NeoX or BLOOM, which differ in the name of `attention` and in its biases."""
    yield from layer_rules(f"{theirs}.input_layernorm", f"{ours}.attn_norms.0", bias=True)
    yield from layer_rules(f"{theirs}.post_attention_layernorm", f"{ours}.mlp_norms.0", bias=True)
    fused = f"{theirs}.{attention}.query_key_value"
    yield from fused_rules(fused, f"{ours}.self_attn", num_heads=num_heads, bias=bias)
    yield from layer_rules(f"{theirs}.{attention}.dense", f"{ours}.self_attn.o_proj", bias=bias)
    yield from layer_rules(f"{theirs}.mlp.dense_h_to_4h", f"{ours}.mlp.up_proj", bias=True)
    yield from layer_rules(f"{theirs}.mlp.dense_4h_to_h", f"{ours}.mlp.down_proj", bias=True)


class Family:
    """Checkpoints of one `model_type`."""

    model_type: str
    prefix: str = ""
    """Leading part of tensor names that some checkpoints leave out."""
    ignored: tuple[str, ...] = ()
    """Endings of tensors that hold no weights (masks, inverse frequencies)."""
    copies: Mapping[str, str] = {}
    """Tensors that some checkpoints store again under another name: {copy: original}."""

    @abstractmethod
    def read_config(self, config: Mapping[str, Any]) -> tuple[ModelSpec, Methods]:
        """Shape and methods of a checkpoint's config.json.

        Raises: IncompatibleError naming the option that our transformer does not have
        """
        raise NotImplementedError

    @abstractmethod
    def write_config(self, spec: ModelSpec, methods: Methods) -> dict[str, Any]:
        """The config.json (model_type and architectures left out) of a model of ours.

        Raises: IncompatibleError naming what this family cannot express
        """
        raise NotImplementedError

    @abstractmethod
    def rules(self, spec: ModelSpec, methods: Methods) -> Iterator[Rule]:
        """Every tensor of theirs."""
        raise NotImplementedError

    architecture: str
    """Class in `architectures`."""
    expresses: frozenset[str] = frozenset()
    """Fields of a shape that only some families can write (RARE), which this one can."""

    def expect_common(self, spec: ModelSpec) -> None:
        """Raise for a shape that says what only other families can."""
        plain = ModelSpec(vocab_size=1)
        for name in RARE:
            same = getattr(spec, name) == getattr(plain, name)
            self.expect(same or name in self.expresses, f"model.{name}={getattr(spec, name)}")

    def refuse(self, what: str) -> IncompatibleError:
        """An error about an option of this family."""
        return IncompatibleError(f"a {self.model_type} checkpoint with {what} cannot be expressed here")

    def expect(self, condition: bool, what: str) -> None:
        """Raise unless a model of ours can be written as this family."""
        if not condition:
            raise IncompatibleError(f"the {self.model_type} family cannot express a model with {what}")

    def expect_methods(self, methods: Methods, **wanted: str | tuple[str, ...]) -> None:
        """Raise unless each axis has (one of) the given methods."""
        for axis, names in wanted.items():
            names = (names,) if isinstance(names, str) else names
            found = methods[axis]["method"]
            self.expect(found in names, f"{axis}={found} (it takes {' or '.join(names)})")

    def expect_windows(
        self, spec: ModelSpec, methods: Methods, *, also: tuple[str, ...] = ()
    ) -> tuple[list[str], int | None]:
        """`layer_types` and `sliding_window` of a model whose layers differ in one window, and in `also`.

        Raises: IncompatibleError for layers that differ otherwise
        """
        heads, attentions = kv_heads_of(spec, methods["attention"]), []
        for layer in layers_of(spec, methods):
            attention = layer["attention"]
            apart = [axis for axis, node in layer.items() if node != methods[axis]]
            fits = set(apart) <= {"attention", *also} and attention["method"] in ATTENTIONS
            self.expect(
                fits and kv_heads_of(spec, attention) == heads, f"model.layer_pattern={spec.layer_pattern}"
            )
            attentions.append(attention)
        slides = [node["method"] == "sliding_window" for node in attentions]
        windows = {int(node["window"]) for node in attentions if node["method"] == "sliding_window"}
        self.expect(len(windows) < 2, "windows of several widths")
        kinds = ["sliding_attention" if near else "full_attention" for near in slides]
        return kinds, windows.pop() if windows else None


def head_methods(num_heads: int, num_kv_heads: int) -> dict[str, Any]:
    """The attention choice for a number of key/value heads."""
    if num_kv_heads == num_heads:
        return {"method": "full"}
    if num_kv_heads == 1:
        return {"method": "multi_query"}
    return {"method": "grouped_query", "num_kv_heads": num_kv_heads}


def kv_heads_of(spec: ModelSpec, attention: Mapping[str, Any]) -> int:
    """Key/value heads of an attention choice."""
    if attention["method"] == "multi_query":
        return 1
    return int(attention.get("num_kv_heads") or spec.num_heads)


def decoder(attention: dict[str, Any], position: dict[str, Any], norm: str, ffn: dict[str, Any]) -> Methods:
    """The methods of a pre-norm causal decoder."""
    return {
        "architecture": {"method": "causal_decoder"},
        "attention": attention,
        "position": position,
        "norm": {"method": norm},
        "norm_position": {"method": "pre"},
        "feed_forward": ffn,
    }


def layer_attention(
    config: Mapping[str, Any], attention: dict[str, Any], kinds: list[str]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The attention of most layers, and the pattern by which others differ, from a config's `layer_types`."""
    window = {
        "method": "sliding_window",
        "window": int(config.get("sliding_window") or 0),
        "num_kv_heads": int(config.get("num_key_value_heads") or config["num_attention_heads"]),
    }
    if set(kinds) == {"sliding_attention"}:
        return window, []
    if "sliding_attention" not in kinds:
        return attention, []
    period = next(n for n in range(1, len(kinds) + 1) if all(k == kinds[i % n] for i, k in enumerate(kinds)))
    return attention, [
        {"attention": dict(window)} if kind == "sliding_attention" else {} for kind in kinds[:period]
    ]


def layers_of(spec: ModelSpec, methods: Methods) -> list[Methods]:
    """The methods of every layer, with all their options."""
    choices = from_plain(methods)
    return [
        {axis: plain_node(choice) for axis, choice in layer_choices(spec, choices, i).items()}
        for i in range(spec.num_layers)
    ]
