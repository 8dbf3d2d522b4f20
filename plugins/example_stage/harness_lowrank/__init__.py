"""Low-rank weights for harness."""

from harness import hookimpl


@hookimpl
def harness_conf() -> list[str]:
    return ["pkg://harness_lowrank.conf"]


@hookimpl
def harness_suites() -> list[str]:
    return ["pkg://harness_lowrank.suites"]
