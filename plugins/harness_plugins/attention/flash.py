"""Full attention through the flash kernel, on CPU too."""

from dataclasses import dataclass

from harness import Attention, ConfigError, Kernel, Method, hookimpl


class Flash(Attention):
    """Full attention that never stores the T by T scores; an error, not a fallback, where it cannot run.

    Paper: Dao et al. 2022, arXiv:2205.14135; Dao 2023, arXiv:2307.08691
    Error: sums in another order than the math kernel; equal within twice its rounding error
    Raises: ConfigError if another kernel is asked for; IncompatibleError where flash cannot run
    """

    name = "flash"

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        kernel: Kernel = Kernel.flash
        """Fixed to flash; attention=full takes the others."""

        def __post_init__(self) -> None:
            if self.kernel is not Kernel.flash:
                raise ConfigError(
                    f"attention.kernel={self.kernel.name} contradicts attention=flash; use attention=full"
                )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Flash]
