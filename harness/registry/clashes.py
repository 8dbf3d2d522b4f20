"""Contributions that cannot stand beside each other, or rest on what no plugin brings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

from harness.errors import UnknownNameError
from harness.method import Method
from harness.registry.modules import OWN, Contribution, Quarantined, Source, own_source
from harness.stage import Stage

Axes = Mapping[str, type[Method]]


def faults(
    axes: Axes, offers: Sequence[Contribution], quarantined: Sequence[Quarantined]
) -> dict[Source, str]:
    """Modules to be left out, with the reason; asked again without them, there may be more.

    `axes` are the built-in contracts.
    """
    return (
        dict(_claimed_twice(axes, offers))
        or dict(_unfounded(axes, offers, quarantined))
        or dict(_unordered(offers))
    )


def in_order(stages: Sequence[type[Stage]]) -> list[type[Stage]]:
    """Stages in the default order, without those whose wishes contradict each other.

    Every one stands behind those it is `after` and before those it is `before`; of those that may stand
    next, the one that was found first.
    """
    by_name = {stage.name: stage for stage in stages}
    earlier = {name: {other for other in stage.after if other in by_name} for name, stage in by_name.items()}
    for name, stage in by_name.items():
        for other in stage.before:
            earlier.get(other, set()).add(name)
    ordered: list[str] = []
    while ready := [name for name in by_name if name not in ordered and earlier[name] <= set(ordered)]:
        ordered.append(ready[0])
    return [by_name[name] for name in ordered]


def _claimed_twice(axes: Axes, offers: Sequence[Contribution]) -> Iterator[tuple[Source, str]]:
    """Modules that claim what another claims: never a silent winner.

    What harness itself ships keeps its name: without it, no config would compose.
    """
    claims: dict[str, dict[type[object], Source]] = defaultdict(dict)
    for name, contract in axes.items():
        claims[f"the axis {name}"][contract] = own_source(contract.__module__)
    for offer in offers:  # one class that two modules pass on is one claim
        claims_of = (
            *((f"the axis {axis.axis}", axis) for axis in offer.axes),
            *((f"{method.axis}={method.name}", method) for method in offer.methods),
            *((f"the stage {stage.name}", stage) for stage in offer.stages),
        )
        for claim, claimant in claims_of:
            claims[claim][claimant] = offer.source
    for claim, claimants in claims.items():
        own = [claimant for claimant, source in claimants.items() if source.package == OWN]
        holder = own[0] if len(own) == 1 else None
        for claimant, source in claimants.items():
            others = [str(claimants[other]) for other in claimants if other is not claimant]
            if others and claimant is not holder:
                yield source, f"it claims {claim}, and so does {' and '.join(others)}; rename one"


def _unfounded(
    axes: Axes, offers: Sequence[Contribution], quarantined: Sequence[Quarantined]
) -> Iterator[tuple[Source, str]]:
    """Modules with a method, a default or a stage that names what does not exist."""
    contracts = {**axes, **{axis.axis: axis for offer in offers for axis in offer.axes}}
    stages = {stage.name: offer.source for offer in offers for stage in offer.stages}
    methods: dict[str, set[str]] = defaultdict(set)
    for offer in offers:
        for method in offer.methods:
            methods[method.axis].add(method.name)

    def unknown(what: str, name: str) -> str:
        broken = next((broken for broken in quarantined if name in broken.offers), None)
        known = contracts if what == "axis" else stages
        return str(broken or UnknownNameError(what=what, name=name, known=known))

    for offer in offers:
        for method in offer.methods:
            if method.axis not in contracts:
                yield offer.source, f"{method.__qualname__} is on no axis: {unknown('axis', method.axis)}"
        for stage in offer.stages:
            for name in {*stage.axes} - {*contracts}:
                yield offer.source, f"{stage.__qualname__}.axes: {unknown('axis', name)}"
        for axis in offer.axes:
            for name in {*axis.stages} - {*stages} if stages else ():  # a registry of some plugins alone
                yield offer.source, f"{axis.__qualname__}.stages: {unknown('stage', name)}"
            default = axis.default if isinstance(axis.default, tuple) else (axis.default,)
            missing = {*default} - methods[axis.axis] - ({"none", None} if axis.optional else {None})
            if missing:
                names = " or ".join(sorted(map(repr, missing)))
                yield offer.source, f"{axis.__qualname__}.default: no {axis.axis} method is called {names}"
            holder = stages.get(axis.axis, offer.source)
            if holder.package != offer.source.package:
                yield offer.source, f"the axis {axis.axis} would take the config key of the stage of {holder}"


def _unordered(offers: Sequence[Contribution]) -> Iterator[tuple[Source, str]]:
    """Modules with stages that have no order; the built-in ones have one."""
    sources = {stage: offer.source for offer in offers for stage in offer.stages}
    for stage in {*sources} - {*in_order(list(sources))}:
        if sources[stage].package != OWN:
            after, before = (" and ".join(names) or "none" for names in (stage.after, stage.before))
            wish = f"{stage.__qualname__} stands after {after} and before {before}"
            yield sources[stage], f"{wish}, which other stages contradict"
