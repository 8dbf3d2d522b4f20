"""How often the process that starts stages died under each of them, and who is to be blamed."""

from collections import Counter

from harness.run.outcome import MAX_LOST


class Deaths:
    """State: the deaths under each stage, in company and alone, that one worker has seen."""

    def __init__(self) -> None:
        self._alone: Counter[str] = Counter()
        self._together: Counter[str] = Counter()

    def blame(self, key: str, *, company: bool) -> bool:
        """Count a death; True if the stage is to be blamed: it was alone each time."""
        seen = self._together if company else self._alone
        seen[key] += 1
        return not company and seen[key] >= MAX_LOST

    def apart(self, key: str) -> bool:
        """Whether a stage is to run beside no other, as there were so many deaths under it and others."""
        return self._together[key] >= MAX_LOST
