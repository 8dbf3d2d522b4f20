"""The child of `registry.probe`: where plugins that hang, exit or die may do so."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from harness.compose.describe import describe, describe_stage
from harness.registry.checks import folder_of
from harness.registry.known import Registry
from harness.registry.modules import Source, said

STDOUT = 1
"""The file descriptor, whatever a plugin does to `sys.stdout`."""


def main(channel: int, refused: Mapping[str, str]) -> None:
    """Load and describe everything, and tell it line by line on a file descriptor; never returns.

    A line is {module, plugin, printed} before code of a module runs, where `printed` are the bytes that came
    out until then; {refused} for a module that loads and cannot be described; or the index, the last line.
    """

    def tell(**news: Any) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os.write(channel, json.dumps(news).encode() + b"\n")

    def announce(source: Source) -> None:
        plugin = f"'{source.module}' from {source.package} {source.version}"
        tell(module=source.module, plugin=plugin, printed=os.fstat(STDOUT).st_size)

    known = Registry.load(refused=refused, announce=announce, caught=(BaseException,))

    def described(
        what: type[Any], source: Source, describing: Callable[..., dict[str, Any]]
    ) -> dict[str, Any]:
        announce(source)
        try:
            found = describing(what, known)
            json.dumps(found)
        except BaseException as error:
            tell(refused={source.module: f"{what.__qualname__} cannot be described: {said(error)}"})
            os._exit(0)
        return found

    methods = [described(method, known.source(method), describe) for method in known.all()]
    axes = {
        name: {
            "summary": axis.summary(),
            "many": axis.many,
            "package": known.axis_source(name).package,
        }
        for name, axis in known.axes.items()
    }
    stages = {
        name: described(stage, known.stage_source(name), describe_stage)
        for name, stage in known.stages.items()
    }
    suites = [str(folder_of(path, "harness_suites")) for path in known.suites]
    conf = [str(folder_of(path, "harness_conf")) for path in known.conf]
    quarantined = [
        {
            "module": broken.source.module,
            "package": broken.source.package,
            "version": broken.source.version,
            "cause": broken.cause,
            "offers": sorted(broken.offers),
            "message": str(broken),
        }
        for broken in known.quarantined
    ]
    eager = [asdict(source) for source in known.eager]
    tell(
        methods=methods,
        axes=axes,
        stages=stages,
        suites=suites,
        conf=conf,
        eager=eager,
        quarantined=quarantined,
    )
    os._exit(0)  # threads and exit handlers of plugins do not hold it
