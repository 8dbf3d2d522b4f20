"""Full attention that decodes from a paged key/value cache."""

from dataclasses import dataclass

from harness import Attention, CacheKind, ConfigError, Method, hookimpl


class Paged(Attention):
    """Full attention; keys and values lie in blocks, found through a block table and shared copy-on-write.

    Paper: Kwon et al. 2023, arXiv:2309.06180, section 4
    Raises: ConfigError if another cache is asked for
    """

    name = "paged"

    @dataclass(frozen=True, kw_only=True)
    class Config(Attention.Config):
        cache: CacheKind = CacheKind.paged
        """Fixed to paged; attention=full takes the others."""

        def __post_init__(self) -> None:
            if self.cache is not CacheKind.paged:
                raise ConfigError(
                    f"attention.cache={self.cache.name} contradicts attention=paged; use attention=full"
                )


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Paged]
