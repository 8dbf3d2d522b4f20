"""Constant: the peak learning rate after the warm-up."""

from harness import Method, Schedule, hookimpl


class Constant(Schedule):
    """No decay."""

    name = "constant"

    def decay(self, progress: float) -> float:
        return 1.0


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Constant]
