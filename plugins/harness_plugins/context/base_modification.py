"""Base modification: another base for all rotations."""

from dataclasses import dataclass, replace

from harness import ConfigError, Context, Method, Rotary, hookimpl, inverse_frequencies


class BaseModification(Context):
    """Replaces the rotary base, then trains on (Code Llama and long-context Llama 2 went to 1e6 and 5e5).

    Paper: Xiong et al. 2023, arXiv:2309.16039, section 2.1
    Raises: ConfigError if base is not above 1
    """

    name = "base_modification"
    trains = True

    @dataclass(frozen=True, kw_only=True)
    class Config(Context.Config):
        base: float = 500000.0
        """New base of the wavelengths, in tokens."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.base <= 1:
                raise ConfigError(f"context.base={self.base} must be above 1")

    config: Config

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        base = self.config.base
        return replace(rotary, base=base, inv_freq=inverse_frequencies(rotary.head_dim, base))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [BaseModification]
