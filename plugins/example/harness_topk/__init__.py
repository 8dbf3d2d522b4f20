"""Top-k attention for harness."""

from harness import hookimpl


@hookimpl
def harness_conf() -> list[str]:
    return ["pkg://harness_topk.conf"]
