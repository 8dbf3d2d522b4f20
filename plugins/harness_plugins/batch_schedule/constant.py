"""Constant batch: the same global batch throughout."""

from harness import BatchSchedule, Method, hookimpl


class Constant(BatchSchedule):
    """The stage's batch size in every step."""

    name = "constant"

    def batch_size(self, final: int, progress: float) -> int:
        return final


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Constant]
