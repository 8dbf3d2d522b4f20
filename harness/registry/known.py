"""The registry: which methods exist, who ships them, and what did not load."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import EntryPoint
from typing import Any

import pluggy

from harness import axes as builtin_axes
from harness import hookspecs
from harness.errors import HarnessError, PluginError, UnknownNameError
from harness.method import Method, model_refs
from harness.registry import index as registry_index
from harness.registry.clashes import faults, in_order
from harness.registry.lazy import Methods
from harness.registry.modules import (
    FAULTS,
    GROUP,
    Contribution,
    Loader,
    Quarantined,
    Source,
    method_of,
    own_source,
    silently,
)
from harness.stage import Stage


@dataclass(kw_only=True)
class Registry:
    """Every axis and method of every installed plugin that loads and is right."""

    axes: dict[str, type[Method]] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    conf: list[str] = field(default_factory=list)
    """Config folders of plugins, as `pkg://package.conf`, in the order found."""
    suites: list[str] = field(default_factory=list)
    """Folders of conformance suites that plugins ship, likewise."""
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))
    stages: dict[str, type[Stage]] = field(default_factory=dict)
    """Every stage by name, in the default order of `stages:`."""
    eager: list[Source] = field(default_factory=list)
    """Modules that bring more than methods, or nothing; the others can wait until they are asked."""
    printing: frozenset[str] = frozenset()
    """Modules that print when they are imported."""
    _methods: dict[str, Methods] = field(default_factory=dict)
    _sources: dict[tuple[str, str], Source] = field(default_factory=dict)
    _axes_of: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _axis_sources: dict[str, Source] = field(default_factory=dict)
    _stage_sources: dict[str, Source] = field(default_factory=dict)

    @property
    def hook(self) -> Any:
        """Callers of the lifecycle hooks: `registry().hook.harness_cell_finished(run=..., record=...)`."""
        return self.manager.hook

    def methods(self, axis: str) -> Mapping[str, type[Method]]:
        """The methods of an axis by name, `none` first, then sorted; each is imported when it is looked up.

        Raises: UnknownNameError with a suggestion; PluginError if the plugin that has it is quarantined
        """
        if axis not in self.axes:
            raise _unknown(self.broken(axis), UnknownNameError(what="axis", name=axis, known=self.axes))
        return self._methods[axis]

    def get(self, axis: str, name: str) -> type[Method]:
        """A method by name.

        Raises: UnknownNameError with a suggestion; PluginError if the plugin that has it is quarantined
        """
        known = self.methods(axis)
        if name not in known:
            unknown = UnknownNameError(what=f"{axis} method", name=name, known=known)
            raise _unknown(self.broken(name), unknown)
        return known[name]

    def stage(self, name: str) -> type[Stage]:
        """The class of a stage; a suffix (`instruct@chat`) names a second use of one stage.

        Raises: UnknownNameError with a suggestion; PluginError if the plugin that has it is quarantined
        """
        base = name.partition("@")[0]
        if base not in self.stages:
            unknown = UnknownNameError(what="stage", name=base, known=self.stages)
            raise _unknown(self.broken(base), unknown)
        return self.stages[base]

    def axes_of(self, stage: str) -> tuple[str, ...]:
        """Axes that a stage reads: its own, and those that plugins add to it."""
        base = stage.partition("@")[0]
        if base not in self._axes_of:
            added = (name for name, axis in self.axes.items() if base in axis.stages)
            self._axes_of[base] = (*self.stage(stage).axes, *added)
        return self._axes_of[base]

    def model_refs(self, axis: str) -> frozenset[str]:
        """The options by which methods of an axis name models; all of its methods are imported."""
        return frozenset().union(*(model_refs(method.Config) for method in self.methods(axis).values()))

    def source(self, method: type[Method]) -> Source:
        """Who ships a method."""
        return self._sources[method.axis, method.name]

    def sources(self) -> Mapping[tuple[str, str], Source]:
        """Who ships each method, by axis and name; nothing is imported."""
        return self._sources

    def axis_source(self, axis: str) -> Source:
        """Who ships an axis."""
        return self._axis_sources[axis]

    def stage_source(self, name: str) -> Source:
        """Who ships a stage."""
        return self._stage_sources[name.partition("@")[0]]

    def all(self) -> Iterator[type[Method]]:
        """Every method, in the order of the axes."""
        for axis in self.axes:
            yield from self._methods[axis].values()

    @classmethod
    def load(
        cls,
        plugins: Iterable[EntryPoint] | None = None,
        *,
        refused: Mapping[str, str] | None = None,
        announce: Callable[[Source], None] = lambda source: None,
        caught: tuple[type[BaseException], ...] = FAULTS,
    ) -> Registry:
        """The registry of the given entry points (all installed ones by default); see `Loader`."""
        found = cls._of_contracts()
        loader = Loader(
            manager=found.manager,
            quarantined=found.quarantined,
            refused=refused or {},
            announce=announce,
            caught=caught,
        )
        offers = loader.load(plugins)
        while wrong := faults(found.axes, offers, found.quarantined):
            for offer in offers:
                if offer.source in wrong:
                    loader.refuse(offer, wrong[offer.source])
            offers = [offer for offer in offers if offer.source not in wrong]
        found._add(offers)
        found.eager = [offer.source for offer in offers if not found._brings_methods_alone(offer)]
        return found

    @classmethod
    def indexed(cls, index: Mapping[str, Any]) -> Registry:
        """The registry that an index describes (see `registry.index`): what does not load stays out, and
        modules that bring methods alone are imported when one of theirs is looked up.
        """
        found = cls._of_contracts()
        found.quarantined += [
            Quarantined(source=_source_of(item), cause=item["cause"], offers=frozenset(item["offers"]))
            for item in index["quarantined"]
        ]
        found.printing = frozenset(item["module"] for item in index["printed"])
        loader = Loader(manager=found.manager, quarantined=found.quarantined, refused={})
        found.eager = [_source_of(item) for item in index["eager"]]
        offers = (loader.load_module(source) for source in found.eager)
        promised = {(m["axis"], m["name"]): _source_of(m) for m in index["methods"]}
        found._add([offer for offer in offers if offer is not None], promised=promised)
        return found

    @classmethod
    def _of_contracts(cls) -> Registry:
        """The built-in axes, without methods."""
        found = cls()
        found.manager.add_hookspecs(hookspecs)
        for name in builtin_axes.BUILTIN:
            contract = builtin_axes.contract(name)
            found._add_axis(contract, own_source(contract.__module__))
        return found

    def _brings_methods_alone(self, offer: Contribution) -> bool:
        callers = self.manager.get_hookcallers(offer.module) or []
        return {caller.name for caller in callers} == {"harness_methods"}

    def _add(
        self, offers: Iterable[Contribution], *, promised: Mapping[tuple[str, str], Source] | None = None
    ) -> None:
        """Add what modules bring, and the methods that others promise to bring once they are imported."""
        # Axes first, so that one plugin may add methods to another's axis.
        for offer in offers:
            for axis in offer.axes:
                self._add_axis(axis, offer.source)
        for offer in offers:
            for method in offer.methods:
                self._add_method(method, offer.source)
            self.conf.extend(offer.conf)
            self.suites.extend(offer.suites)
            self._stage_sources |= {stage.name: offer.source for stage in offer.stages}
        for (axis_name, name), source in (promised or {}).items():
            if axis_name in self.axes and name not in self._methods[axis_name]:
                self._methods[axis_name].promise(name, partial(method_of, source, axis_name, name))
                self._sources[axis_name, name] = source
        stages = [stage for offer in offers for stage in offer.stages]
        self.stages = {stage.name: stage for stage in in_order(stages)}
        for methods in self._methods.values():
            methods.sort(key=lambda name: (name != "none", name))

    def _add_axis(self, axis: type[Method], source: Source) -> None:
        """Register a contract, and the `none` of an optional one."""
        self.axes[axis.axis] = axis
        self._axis_sources[axis.axis] = source
        self._methods[axis.axis] = Methods()
        if axis.optional:
            self._add_method(_none_of(axis), source)

    def _add_method(self, method: type[Method], source: Source) -> None:
        self._methods[method.axis].add(method)
        self._sources[method.axis, method.name] = source

    def broken(self, name: str) -> Quarantined | None:
        """The quarantined module that seems to define a name."""
        return next((broken for broken in self.quarantined if name in broken.offers), None)


@functools.cache
def registry() -> Registry:
    """The registry of everything installed, made once a process, without what the index says is broken."""
    index = registry_index.read()
    with silently():
        return Registry.indexed(index)


def _source_of(item: Mapping[str, Any]) -> Source:
    """Who ships what an entry of the index describes."""
    return Source(package=item["package"], version=item["version"], module=item["module"])


def _unknown(broken: Quarantined | None, unknown: UnknownNameError) -> HarnessError:
    return unknown if broken is None else PluginError(str(broken))


def _none_of(axis: type[Method]) -> type[Method]:
    """The `none` of an optional axis: chosen, it leaves out what the axis does and has no options."""
    nothing: dict[str, Any] = dict.fromkeys(("requires", "changes", "provides", "conflicts"), frozenset())
    doc = f"No {axis.axis.replace('_', ' ')}: what this axis does is left out."
    method: type[Method] = type(
        f"No{axis.__name__}",
        (axis,),
        {"__doc__": doc, "__module__": axis.__module__, "name": "none", **nothing},
    )
    method.Config = Method.Config  # type: ignore[misc]
    return method
