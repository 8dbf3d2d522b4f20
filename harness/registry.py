"""The registry: which methods exist, who ships them, and what did not load."""

from __future__ import annotations

import ast
import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from harness import axes as builtin_axes
from harness import hookspecs
from harness.errors import DuplicateMethodError, PluginError, UnknownNameError
from harness.method import Method
from harness.stage import Stage

GROUP = "harness"
"""The entry point group; each entry names a module or a package of modules."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Who ships a method."""

    package: str
    version: str
    module: str

    def __str__(self) -> str:
        return f"{self.module} ({self.package} {self.version})"


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """A plugin module that did not load; everything else works without it."""

    source: Source
    cause: str
    offers: frozenset[str] = frozenset()
    """Names of methods that its source seems to define, read without importing it."""

    def __str__(self) -> str:
        return (
            f"Plugin '{self.source.module}' from {self.source.package} {self.source.version} does not load: "
            f"{self.cause}. Repair or uninstall it."
        )


@dataclass(kw_only=True)
class Registry:
    """Every axis and method of every installed plugin.

    Raises: DuplicateMethodError from `load` if two plugins claim one name on one axis
    """

    axes: dict[str, type[Method]] = field(default_factory=dict)
    quarantined: list[Quarantined] = field(default_factory=list)
    conf: list[str] = field(default_factory=list)
    """Config folders of plugins, as `pkg://package.conf`, in the order found."""
    manager: pluggy.PluginManager = field(default_factory=lambda: pluggy.PluginManager(GROUP))
    stages: dict[str, type[Stage]] = field(default_factory=dict)
    """Every stage by name, in the default order of `stages:`."""
    _methods: dict[str, dict[str, type[Method]]] = field(default_factory=dict)
    _sources: dict[type[Method], Source] = field(default_factory=dict)

    @property
    def hook(self) -> Any:
        """Callers of the lifecycle hooks: `registry().hook.harness_cell_finished(run=..., record=...)`."""
        return self.manager.hook

    def methods(self, axis: str) -> dict[str, type[Method]]:
        """The methods of an axis by name, `none` first, then sorted."""
        self._known_axis(axis)
        return self._methods[axis]

    def get(self, axis: str, name: str) -> type[Method]:
        """A method by name.

        Raises: UnknownNameError with a suggestion; PluginError if the plugin that has it is quarantined
        """
        known = self.methods(axis)
        if name in known:
            return known[name]
        for broken in self.quarantined:
            if name in broken.offers:
                raise PluginError(str(broken))
        raise UnknownNameError(what=f"{axis} method", name=name, known=known)

    def stage(self, name: str) -> type[Stage]:
        """The class of a stage; a suffix (`instruct@chat`) names a second use of one stage.

        Raises: UnknownNameError
        """
        base = name.partition("@")[0]
        if base not in self.stages:
            raise UnknownNameError(what="stage", name=base, known=self.stages)
        return self.stages[base]

    def source(self, method: type[Method]) -> Source:
        """Who ships a method."""
        return self._sources[method]

    def all(self) -> Iterator[type[Method]]:
        """Every method, in the order of the axes."""
        for axis in self.axes:
            yield from self._methods[axis].values()

    def add_axis(self, axis: type[Method], source: Source) -> None:
        """Register a contract, and the `none` of an optional one."""
        name = axis.axis
        if name in self.axes:
            raise DuplicateMethodError(
                f"Two plugins add the axis '{name}': {self.axes[name].__module__} and {source}"
            )
        self.axes[name] = axis
        self._methods[name] = {}
        if axis.optional:
            self.add_method(_none_of(axis), source)

    def add_method(self, method: type[Method], source: Source) -> None:
        """Register a method under its axis and name."""
        if method.axis not in self.axes:
            raise UnknownNameError(what="axis", name=method.axis, known=self.axes)
        taken = self._methods[method.axis].get(method.name)
        if taken is not None:
            raise DuplicateMethodError(
                f"Two plugins claim {method.axis}={method.name}: {self._sources[taken]} and {source}; "
                "uninstall or rename one"
            )
        self._methods[method.axis][method.name] = method
        self._sources[method] = source

    def add_stage(self, stage: type[Stage], source: Source) -> None:
        """Register a stage under its name."""
        taken = self.stages.get(stage.name)
        if taken is not None:
            raise DuplicateMethodError(
                f"Two plugins add the stage '{stage.name}': {taken.__module__} and {source}; uninstall one"
            )
        self.stages[stage.name] = stage

    def _known_axis(self, axis: str) -> None:
        if axis not in self.axes:
            raise UnknownNameError(what="axis", name=axis, known=self.axes)

    @classmethod
    def load(cls, plugins: Iterable[EntryPoint] | None = None) -> Registry:
        """The registry of the given entry points (all installed ones by default)."""
        found = cls()
        found.manager.add_hookspecs(hookspecs)
        for axis in builtin_axes.BUILTIN:
            contract = builtin_axes.contract(axis)
            found.add_axis(
                contract, Source(package="harness-lm", version=_own_version(), module=contract.__module__)
            )
        modules = [
            (module, source)
            for entry in _unique(plugins)
            for module, source in _modules(entry, found.quarantined)
        ]
        loaded = [(module, source) for module, source in modules if found._register(module, source)]
        # Axes first, so that one plugin may add methods to another's axis.
        for module, source in loaded:
            for axis_class in _call(module, "harness_axes"):
                found.add_axis(axis_class, source)
        for module, source in loaded:
            for method in _call(module, "harness_methods"):
                found.add_method(method, source)
            for stage in _call(module, "harness_stages"):
                found.add_stage(stage, source)
            found.conf.extend(_call(module, "harness_conf"))
        found.stages = _in_order(found.stages)
        for axis, methods in found._methods.items():
            ordered = sorted(methods, key=lambda name: (name != "none", name))
            found._methods[axis] = {name: methods[name] for name in ordered}
        return found

    def _register(self, module: ModuleType, source: Source) -> bool:
        """Register a module's hooks, or quarantine it with the reason."""
        try:
            self.manager.register(module, name=module.__name__)
            self.manager.check_pending()
            for hook in ("harness_axes", "harness_methods", "harness_stages", "harness_conf"):
                _check_result(hook, _call(module, hook))
        except Exception as error:
            if self.manager.is_registered(module):
                self.manager.unregister(module)
            self.quarantined.append(_quarantine(source, error))
            return False
        return True


@functools.cache
def registry() -> Registry:
    """The registry of everything installed; loaded once a process."""
    return Registry.load()


def _unique(plugins: Iterable[EntryPoint] | None) -> list[EntryPoint]:
    """Entry points without those that two paths to one distribution yield twice."""
    entries = entry_points(group=GROUP) if plugins is None else plugins
    return list({(_package(entry), entry.name, entry.value): entry for entry in entries}.values())


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]


def _own_version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("harness-lm")
    except PackageNotFoundError:
        return "0"


def _modules(entry: EntryPoint, quarantined: list[Quarantined]) -> Iterator[tuple[ModuleType, Source]]:
    """The module an entry point names and all its submodules that are not private, imported."""
    version = entry.dist.version if entry.dist is not None else "0"
    pending = [entry.module]
    while pending:
        name = pending.pop(0)
        source = Source(package=_package(entry), version=version, module=name)
        try:
            module = importlib.import_module(name)
        except Exception as error:
            quarantined.append(_quarantine(source, error))
            continue
        yield module, source
        for info in pkgutil.iter_modules(getattr(module, "__path__", ())):
            if not info.name.startswith("_"):
                pending.append(f"{name}.{info.name}")


def _quarantine(source: Source, error: Exception) -> Quarantined:
    cause = " ".join(str(error).split()) or type(error).__name__
    if not isinstance(error, ImportError | PluginError | pluggy.PluginValidationError):
        cause = f"{type(error).__name__}: {cause}"
    return Quarantined(source=source, cause=cause, offers=_names_in_source(source.module))


def _names_in_source(module: str) -> frozenset[str]:
    """Strings assigned to `name` in the classes of a module that cannot be imported."""
    try:
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (ImportError, AssertionError, SyntaxError, OSError, ValueError):
        return frozenset({module.rpartition(".")[2]})
    found = {
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "name" for target in node.targets)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    return frozenset(found | {module.rpartition(".")[2]})


def _call(module: ModuleType, hook: str) -> list[Any]:
    """What a module's own implementation of a collecting hook returns."""
    implementation = getattr(module, hook, None)
    if implementation is None or getattr(implementation, f"{GROUP}_impl", None) is None:
        return []
    result = implementation()
    return result if isinstance(result, list) else [result]


def _check_result(hook: str, values: list[Any]) -> None:
    for value in values:
        if hook == "harness_conf":
            if not (isinstance(value, str) and value.startswith("pkg://")):
                raise PluginError(
                    f"harness_conf returned {value!r}; return strings like 'pkg://package.conf'"
                )
        elif hook == "harness_stages":
            if not (isinstance(value, type) and issubclass(value, Stage)):
                raise PluginError(f"harness_stages returned {value!r}, which is no Stage class")
        elif not (isinstance(value, type) and issubclass(value, Method)):
            raise PluginError(f"{hook} returned {value!r}, which is no Method class")
        elif value.abstract != (hook == "harness_axes"):
            expected = "contracts (no `name`)" if hook == "harness_axes" else "methods that state a `name`"
            raise PluginError(f"{hook} returned {value.__qualname__}; it takes {expected}")


def _in_order(stages: dict[str, type[Stage]]) -> dict[str, type[Stage]]:
    """Stages in the default order: every one behind those it is `after` and before those it is `before`;
    of those that may stand next, the one that was found first.

    Raises: PluginError where the wishes contradict each other
    """
    earlier = {name: {other for other in stage.after if other in stages} for name, stage in stages.items()}
    for name, stage in stages.items():
        for other in stage.before:
            earlier.get(other, set()).add(name)
    ordered: dict[str, type[Stage]] = {}
    while len(ordered) < len(stages):
        ready = [n for n in stages if n not in ordered and earlier[n] <= ordered.keys()]
        if not ready:
            waiting = sorted(set(stages) - set(ordered))
            raise PluginError(f"the stages {waiting} have no order: their `after` and `before` contradict")
        ordered[ready[0]] = stages[ready[0]]
    return ordered


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
