"""auto_gptq: the library itself, in its own interpreter."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._external_gptq import ExternalGPTQ, ExternalGPTQConfig


class AutoGPTQ(ExternalGPTQ):
    """GPTQ by auto_gptq 0.7.1, the last release, on CUDA; its packed tensors are kept as they come.

    Paper: Frantar et al. 2022, arXiv:2210.17323; https://github.com/AutoGPTQ/AutoGPTQ
    Raises: IncompatibleError without the interpreter, the library or CUDA
    """

    name = "auto_gptq"

    @dataclass(frozen=True, kw_only=True)
    class Config(ExternalGPTQConfig):
        """The interpreter, and the library's options."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AutoGPTQ]
