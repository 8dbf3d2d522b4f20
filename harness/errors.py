"""Every error a user can meet; each message says where, what is wrong, and what would work."""

import difflib
from collections.abc import Iterable, Sequence


class HarnessError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(HarnessError, ValueError):
    """A config value that cannot work."""


MOST_LISTED = 100
"""Names that a message lists; no axis has as many methods."""


class UnknownNameError(ConfigError):
    """A name that nothing is registered under."""

    def __init__(self, *, what: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        super().__init__(f"No {what} is called '{name}'.{hint} Known: {_listed(name, known) or 'none'}")

    def __reduce__(self) -> tuple[type[ConfigError], tuple[str]]:
        return ConfigError, (str(self),)


def _listed(name: str, known: Sequence[str]) -> str:
    """The known names, of very many those that are most like the one that was given."""
    if len(known) <= MOST_LISTED:
        return ", ".join(known)
    shown = difflib.get_close_matches(name, known, n=12, cutoff=0.2) or known[:12]
    return f"{', '.join(shown)} and {len(known) - len(shown)} more"


class ImpossibleValueError(ConfigError):
    """A value that its method, stage or cell refuses; another cell of the sweep may well work."""


class PluginError(HarnessError):
    """A plugin that does not load, or that breaks a contract."""


class IncompatibleError(HarnessError):
    """Methods that cannot work together; the reason is a result and stands in the table."""


class EffectError(HarnessError):
    """A method was asked for and measurably changed nothing."""


class StoreError(HarnessError):
    """The store cannot be used as asked."""


class StoreFullError(StoreError):
    """The store's disk is full; free space and run the same command again."""


class NewerFormatError(StoreError):
    """A newer version of harness wrote it; this one neither reads nor overwrites it."""


class CorruptArtifactError(StoreError):
    """An artifact whose content does not match its hash."""


class DataError(HarnessError):
    """Input data that cannot be read as what it should be."""


class AbsentError(StoreError, DataError, ConfigError):
    """A record, a sweep or a file that was named and that is not there, or not alone."""


class ChangedError(DataError):
    """A file is not what it was when the plan was made; trying again, with a new plan, may go well."""


class TaskError(HarnessError):
    """An evaluation task that does not exist or cannot be had."""


class DivergedError(HarnessError):
    """Training left the finite numbers."""

    def __init__(self, step: int, reason: str) -> None:
        super().__init__(f"training diverged at step {step}: {reason}")
        self.step, self.reason = step, reason

    def __reduce__(self) -> tuple[type["DivergedError"], tuple[int, str]]:
        return DivergedError, (self.step, self.reason)


class LostError(HarnessError):
    """A process or node that took part went away; trying again may go well."""


class MissingExtraError(HarnessError):
    """A library that an optional method needs is not installed."""

    def __init__(self, *, package: str, extra: str, needed_by: str) -> None:
        super().__init__(
            f"{needed_by} needs the package '{package}', which is not installed; "
            f"pip install 'harness-lm[{extra}]'"
        )

    def __reduce__(self) -> tuple[type[HarnessError], tuple[str]]:
        return HarnessError, (str(self),)
