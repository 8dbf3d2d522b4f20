"""The stage graph: what each cell asks for, shared wherever everything that determines it agrees."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.axes import MODEL_AXES
from harness.compose import schema
from harness.compose.schema import stage_axes
from harness.errors import ConfigError
from harness.method import MODEL, Problem
from harness.model.gguf import dequantized, is_gguf
from harness.plan.files import CACHE, Files, flat, owner
from harness.plan.node import (
    Asked,
    Node,
    device_of,
    identities,
    layer_modules,
    modules_of,
    seed_of,
    versions_of,
)
from harness.registry.known import registry
from harness.store import Artifact, Store
from harness.store.external import PATH, external
from harness.store.fingerprint import Fingerprints
from harness.store.keys import Plain, plain, stage_key

if TYPE_CHECKING:
    from harness.compose import Cell
    from harness.stage import Choices

CELL = "cell:"


@dataclass
class Graph:
    """All nodes by key, inputs always before what reads them, and models from outside the store."""

    store: Store
    places_nodes: bool = False
    """Whether a stage may run on several nodes: whoever runs it can place it there."""
    nodes: dict[str, Node] = field(default_factory=dict)
    externals: dict[str, str] = field(default_factory=dict)
    """Key -> directory of models from outside the store."""

    def __post_init__(self) -> None:
        self._fingerprints = Fingerprints(self.store.root / "cache" / "fingerprints.json")
        self._files = Files(self.store.root / CACHE)
        self._models: dict[str, str] = {}
        self._referred: dict[tuple[str, ...], Cell] = {}
        self._resolving: list[str] = []
        self._asked_at: dict[tuple[Any, ...], Asked] = {}
        self._nodes_at: dict[tuple[Any, ...], Node] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_asked_at": {}, "_nodes_at": {}}  # identities hold in this process alone

    def add(self, cell: Cell) -> list[str]:
        """Keys of everything a cell asks for, in order; new nodes join the graph.

        Raises: ConfigError where a stage's input is made by no earlier stage
        """
        keys: list[str] = []
        latest = self._outside(cell)
        for stage in cell.stages:
            kind = registry().stage(stage)
            if not kind.active(cell):
                continue
            made: list[str] = []
            for part in kind.parts(cell):
                node = self._node(cell, stage, part, latest)
                self.nodes.setdefault(node.key, node)
                made.append(node.key)
            keys += made
            if made:
                latest[kind.produces] = made[-1]
        return keys

    def model_of(self, cell: Cell) -> str:
        """Key of the model a cell ends with, its graph added; evaluations are not asked for.

        Raises: ConfigError where it makes none, or where references lead in a circle
        """
        if cell.id in self._models:
            return self._models[cell.id]
        if cell.id in self._resolving:
            raise ConfigError(f"model references lead in a circle: {' -> '.join(self._resolving)}")
        self._resolving.append(cell.id)
        try:
            latest = self._outside(cell)
            last = max(
                (i for i, stage in enumerate(cell.stages) if registry().stage(stage).produces == "model"),
                default=-1,
            )
            for stage in cell.stages[: last + 1]:
                kind = registry().stage(stage)
                if kind.active(cell):
                    for part in kind.parts(cell):
                        node = self._node(cell, stage, part, latest)
                        self.nodes.setdefault(node.key, node)
                        latest[kind.produces] = node.key
        finally:
            self._resolving.pop()
        if "model" not in latest:
            raise ConfigError(f"the referenced cell ({' '.join(cell.overrides)}) makes no model")
        self._models[cell.id] = latest["model"]
        return latest["model"]

    def ancestors(self, key: str) -> Iterator[str]:
        """Keys of all nodes that a node rests on, itself not among them."""
        seen = set()
        waiting = list(self.nodes[key].inputs.values())
        while waiting:
            current = waiting.pop()
            if current in self.nodes and current not in seen:
                seen.add(current)
                yield current
                waiting += self.nodes[current].inputs.values()

    def artifact(self, key: str) -> Artifact | None:
        """The artifact of a key: from outside, or from the store if it is there."""
        if key in self.externals:
            return external(self.externals[key], cache=self._directories)
        return self.store.find(key)

    def differences(self, nodes: Iterable[Node]) -> dict[str, str]:
        """What here is not as nodes' keys say, `code` or a library's name, each with a stage it concerns."""
        found: dict[str, str] = {}
        current = Fingerprints(self._fingerprints.cache_file)  # a plan from elsewhere remembers its own
        for node in nodes:
            source = current.of(modules_of(node.maker, node.choices) | layer_modules(node.cell, node.choices))
            if source.sha256 != node.material["fingerprint"]:
                found.setdefault("code", node.title)
            planned, here = node.material["numerics"]["versions"], versions_of(source)
            for name in sorted({*planned, *here}):
                if planned.get(name) != here.get(name):
                    found.setdefault(name, node.title)
        return found

    def misread(self, keys: Iterable[str]) -> Iterator[Problem]:
        """What speaks against the files that options of these nodes and of all they rest on name, by what
        reads them.
        """
        nodes = [self.nodes[key] for asked in keys for key in (*self.ancestors(asked), asked)]
        distinct = {id(choice): choice for node in nodes for choice in flat(node.choices)}
        for choice in distinct.values():
            code = self._fingerprints.of(choice.method.code_of(choice.config)).sha256
            if fault := self._files.misread(choice, code=code):
                yield Problem(where=owner(choice), message=fault)

    def save_caches(self) -> None:
        """Remember what was hashed."""
        self._fingerprints.save()
        self._files.save()

    @property
    def _directories(self) -> Path:
        return self.store.root / CACHE

    def _outside(self, cell: Cell) -> dict[str, str]:
        """Inputs that no stage makes: a pretrained model, which brings its own tokenizer."""
        path = cell.model_path()
        if path is None:
            return {}
        if absent := cell.unfetched():
            raise ConfigError(absent)
        if cell.imports_model():
            from harness.model.checkpoint import converted

            shape = {axis: cell.choice(axis) for axis in MODEL_AXES}
            replace = {axis: choice for axis, choice in shape.items() if choice is not None}
            path = str(converted(Path(self._unpacked(path)), replace=replace, root=self.store.root))
        key = self._external(path)
        return {"model": key, "tokenizer": key}

    def _external(self, reference: str) -> str:
        reference = self._unpacked(reference)
        artifact = external(reference, cache=self._directories)
        self.externals[artifact.key] = reference
        return artifact.key

    def _unpacked(self, reference: str) -> str:
        """A reference, in place of one to a GGUF that to the directory it is dequantized into, once."""
        if not is_gguf(reference):
            return reference
        file = Path(reference.removeprefix(PATH)).expanduser().absolute()
        return str(dequantized(file, root=self.store.root))

    def _node(self, cell: Cell, stage: str, part: str, latest: Mapping[str, str]) -> Node:
        kind = registry().stage(stage)
        inputs = {name: latest[name] for name in (*kind.needs, *kind.may_need) if name in latest}
        missing = [name for name in kind.needs if name not in latest]
        if missing:
            raise ConfigError(
                f"stages: {stage} needs {' and '.join(missing)}, which no earlier stage of "
                f"[{', '.join(cell.stages)}] makes"
            )
        asked = self._asked(cell, stage, part)
        inputs |= self._references(cell, stage, asked.config, asked.choices)
        seed = seed_of(cell, stage) if asked.draws else None
        place = (id(asked), seed, *itertools.chain(*inputs.items()))
        if place not in self._nodes_at:
            self._nodes_at[place] = self._new_node(cell, asked, inputs, seed)
        return self._nodes_at[place]

    def _new_node(self, cell: Cell, asked: Asked, inputs: dict[str, str], seed: int | None) -> Node:
        key, material = stage_key(
            stage=asked.stage,
            part=asked.part,
            nodes=asked.nodes,
            config=asked.options,
            inputs=inputs,
            files=asked.files,
            seed=seed,
            numerics=asked.numerics,
            fingerprint=asked.source.sha256,
        )
        return Node(
            key=key,
            stage=asked.stage,
            maker=asked.maker,
            axes=stage_axes(asked.stage),
            part=asked.part,
            kind=asked.maker.produces,
            inputs=inputs,
            seed=seed,
            config=asked.config,
            choices=asked.choices,
            cell=cell,
            device=asked.device,
            material=material,
            libraries=asked.source.libraries,
            alone=asked.alone,
        )

    def _asked(self, cell: Cell, stage: str, part: str) -> Asked:
        """What a cell asks of a part, worked out once for all cells that ask the same."""
        kind = registry().stage(stage)
        read = cell.choices_of(stage)
        config = cell.stage_config(stage)
        spec = cell.spec() if "architecture" in stage_axes(stage) else None
        device = device_of(cell)
        # By identity: equal nodes of cells are one object (compose.shared), and `Asked` keeps them alive.
        place = (stage, part, device, id(config), id(spec), *identities(read))
        if place not in self._asked_at:
            choices = kind.narrow(part, read)
            source = self._fingerprints.of(modules_of(kind, choices) | layer_modules(cell, choices))
            surroundings = kind.surroundings(part, choices)
            nodes: dict[str, Any] = {axis: value for axis, value in choices.items() if value}
            if "architecture" in stage_axes(stage):
                nodes["model"] = spec
            self._asked_at[place] = Asked(
                stage=stage,
                maker=kind,
                part=part,
                config=config,
                read=read,
                choices=choices,
                spec=spec,
                device=device,
                draws=kind.draws(part, choices),
                nodes=Plain(plain(nodes)),
                options=Plain(plain(config)),
                files=Plain(plain(self._files.of(stage, config, choices))),
                numerics=Plain(plain({"device": device, "versions": versions_of(source), **surroundings})),
                source=source,
                alone=bool(surroundings),
            )
        return self._asked_at[place]

    def _references(self, cell: Cell, stage: str, config: Any, choices: Choices) -> dict[str, str]:
        """Inputs named by options that refer to models."""
        configs = [(schema.stage_key(stage), config)]
        configs += [(owner(choice), choice.config) for choice in flat(choices)]
        return {
            f"{where}.{option.name}": self._reference(cell, value)
            for where, options in configs
            for option in fields(options)
            if MODEL in option.metadata and (value := getattr(options, option.name))
        }

    def _reference(self, cell: Cell, value: str) -> str:
        if not value.startswith(CELL):
            return self._external(value)
        from harness.compose import compose
        from harness.plan.grammar import split_overrides

        named = split_overrides(value.removeprefix(CELL))
        keys = {text.partition("=")[0] for text in named}
        kept = [text for text in cell.overrides if not _replaced(text.partition("=")[0], keys)]
        overrides = (*kept, *named)  # what only the named keys tell apart refers to one cell, composed once
        if overrides not in self._referred:
            self._referred[overrides] = compose(overrides)
        return self.model_of(self._referred[overrides])


def _replaced(key: str, named: Collection[str]) -> bool:
    """Whether an override goes where others are named: one of them, or an option of what one replaces."""
    return any(key == name or key.startswith(f"{name}.") for name in named)
