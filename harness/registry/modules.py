"""Plugin modules: found by entry point, imported one by one; what each brings counts once it is checked."""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import pkgutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from harness.errors import HarnessError, PluginError
from harness.method import Method
from harness.registry.checks import check_axis, check_method, check_stage, folder_of
from harness.stage import Stage
from harness.surroundings import kept

GROUP = "harness"
"""The entry point group; each entry names a module or a package of modules."""
OWN = "harness-lm"
"""The distribution of the built-in plugins."""
FAULTS: tuple[type[BaseException], ...] = (Exception, SystemExit)
"""What a plugin may raise where it is loaded; an interrupt is the user's."""


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
    """A plugin module that does not load, or is wrong; everything else works without it."""

    source: Source
    cause: str
    offers: frozenset[str] = frozenset()
    """Names of methods and axes that its source seems to define, read without importing it."""

    def __str__(self) -> str:
        return (
            f"Plugin '{self.source.module}' from {self.source.package} {self.source.version} does not load: "
            f"{self.cause.rstrip('.')}. Repair or uninstall it."
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Contribution:
    """What one module brings, each thing checked by itself; it counts as a whole or not at all."""

    source: Source
    module: ModuleType
    axes: list[type[Method]] = field(default_factory=list)
    methods: list[type[Method]] = field(default_factory=list)
    stages: list[type[Stage]] = field(default_factory=list)
    conf: list[str] = field(default_factory=list)
    suites: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Loader:
    """Imports plugin modules and collects what they bring.

    State: `quarantined` grows by each module that fails
    """

    manager: pluggy.PluginManager
    quarantined: list[Quarantined]
    refused: Mapping[str, str]
    """Modules known not to load, with the reason; no code of theirs runs."""
    announce: Callable[[Source], None] = lambda source: None
    """Called with a module's source before any of its code runs."""
    caught: tuple[type[BaseException], ...] = FAULTS

    def load(self, plugins: Iterable[EntryPoint] | None) -> list[Contribution]:
        """What the modules behind the entry points bring (all installed ones by default)."""
        seen: set[str] = set()
        found = []
        for entry in _unique(plugins):
            source, pending = _source(entry), [entry.module]
            while pending:
                name = pending.pop(0)
                if name in seen:
                    continue  # two entry points of one package may overlap
                seen.add(name)
                offer = self.load_module(replace(source, module=name))
                if offer is not None:
                    found.append(offer)
                    pending += _submodules(offer.module)
        return found

    def refuse(self, offer: Contribution, reason: str) -> None:
        """Take a module that loaded out again; its hooks are not called."""
        self.manager.unregister(offer.module)
        self.quarantined.append(quarantine(offer.source, PluginError(reason)))

    def load_module(self, source: Source) -> Contribution | None:
        """One module's contribution, or None where it is quarantined."""
        self.announce(source)
        module: ModuleType | None = None
        try:
            if source.module in self.refused:
                raise PluginError(self.refused[source.module])
            module = _imported(source.module)
            self.manager.register(module, name=module.__name__)
            self.manager.check_pending()
            return _contribution(module, source)
        except self.caught as error:
            if module is not None and self.manager.is_registered(module):
                self.manager.unregister(module)
            self.quarantined.append(quarantine(source, error))
            return None


def _imported(name: str) -> ModuleType:
    """A module, imported; PluginError where it leaves a thread behind that no command could end with, or
    changes what others share with it.
    """
    before = set(threading.enumerate())
    with kept("when it is imported"):
        module = importlib.import_module(name)
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    if left:
        raise PluginError(
            f"it starts the thread {left[0].name!r} when it is imported, which would keep every command from "
            "ending; start it where it is used, or with daemon=True"
        )
    return module


def method_of(source: Source, axis: str, name: str) -> type[Method]:
    """A method of a module that is known to load, imported now; what it prints is dropped.

    Raises: PluginError naming the plugin where it no longer loads, or no longer brings the method
    """
    try:
        with silently():
            found = _classes(_imported(source.module), "harness_methods")
        return next(method for method in found if (method.axis, method.name) == (axis, name))
    except StopIteration:
        error: BaseException = PluginError(f"it no longer brings {axis}={name}")
    except FAULTS as raised:
        error = raised
    raise PluginError(str(quarantine(source, error))) from error


@contextlib.contextmanager
def blaming(owner: object) -> Iterator[None]:
    """Name whose code it is that raises what no user can have meant.

    Raises: PluginError
    """
    try:
        yield
    except HarnessError:
        raise
    except Exception as error:
        raise PluginError(
            f"{owner} fails: {type(error).__name__}: {error} (HARNESS_DEBUG=1 shows where); repair it, or "
            "choose another"
        ) from error


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Keep what plugins print while they load out of a command's output; `harness doctor` shows it."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield


def own_source(module: str) -> Source:
    """The source of what harness itself ships."""
    try:
        return Source(package=OWN, version=version(OWN), module=module)
    except PackageNotFoundError:
        return Source(package=OWN, version="0", module=module)


def quarantine(source: Source, error: BaseException) -> Quarantined:
    """The record of a failure, with the names that asking for must find it."""
    return Quarantined(source=source, cause=said(error), offers=_names_in_source(source.module))


def said(error: BaseException) -> str:
    """An exception in one line, with its type where the message alone says too little."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    if text and isinstance(error, ImportError | PluginError | pluggy.PluginValidationError):
        return text
    return f"{kind}: {text}" if text else kind


def _unique(plugins: Iterable[EntryPoint] | None) -> list[EntryPoint]:
    """Entry points without those that two paths to one distribution yield twice; the built-in ones first."""
    entries = entry_points(group=GROUP) if plugins is None else plugins
    unique = {(_package(entry), entry.name, entry.value): entry for entry in entries}.values()
    return sorted(unique, key=lambda entry: _package(entry) != OWN)


def _package(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else entry.module.partition(".")[0]


def _source(entry: EntryPoint) -> Source:
    """Of an entry point's own module; reading a distribution's metadata takes milliseconds."""
    found = entry.dist.version if entry.dist is not None else "0"
    return Source(package=_package(entry), version=found, module=entry.module)


def _submodules(module: ModuleType) -> list[str]:
    """The modules of a package that are not private."""
    found = pkgutil.iter_modules(getattr(module, "__path__", ()))
    return [f"{module.__name__}.{info.name}" for info in found if not info.name.startswith("_")]


def _contribution(module: ModuleType, source: Source) -> Contribution:
    """What a module's hooks return.

    Raises: PluginError for what could not be published; anything that a hook raises
    """
    conf, suites = _call(module, "harness_conf"), _call(module, "harness_suites")
    for hook, paths in (("harness_conf", conf), ("harness_suites", suites)):
        for path in paths:
            folder_of(path, hook)
    axes, methods = _classes(module, "harness_axes"), _classes(module, "harness_methods")
    for axis in axes:
        check_axis(axis)
    for method in methods:
        check_method(method)
    stages = _call(module, "harness_stages")
    for stage in stages:
        if not (isinstance(stage, type) and issubclass(stage, Stage)):
            raise PluginError(f"harness_stages returned {stage!r}, which is no Stage class")
        check_stage(stage)
    return Contribution(
        source=source,
        module=module,
        axes=axes,
        methods=methods,
        stages=stages,
        conf=conf,
        suites=suites,
    )


def _classes(module: ModuleType, hook: str) -> list[type[Method]]:
    values = _call(module, hook)
    for value in values:
        if not (isinstance(value, type) and issubclass(value, Method)):
            raise PluginError(f"{hook} returned {value!r}, which is no Method class")
        if value.abstract != (hook == "harness_axes"):
            expected = "contracts (no `name`)" if hook == "harness_axes" else "methods that state a `name`"
            raise PluginError(f"{hook} returned {value.__qualname__}; it takes {expected}")
    return values


def _call(module: ModuleType, hook: str) -> list[Any]:
    """What a module's own implementation of a collecting hook returns."""
    implementation = getattr(module, hook, None)
    if implementation is None or getattr(implementation, f"{GROUP}_impl", None) is None:
        return []
    with kept(f"when {hook} is called"):
        result = implementation()
    return result if isinstance(result, list) else [result]


def _names_in_source(module: str) -> frozenset[str]:
    """Strings assigned to `name` or `axis` in the classes of a module that cannot be imported."""
    try:
        spec = find_spec(module)
        assert spec is not None
        assert spec.origin is not None
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except (Exception, SystemExit):  # finding a submodule runs its package, which may be the broken one
        return frozenset({module.rpartition(".")[2]})
    found = {
        node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id in ("name", "axis") for target in node.targets)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    }
    return frozenset(found | {module.rpartition(".")[2]})
