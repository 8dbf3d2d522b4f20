"""gptqmodel: the library itself, in its own interpreter."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._external_gptq import ExternalGPTQ, ExternalGPTQConfig


class GPTQModel(ExternalGPTQ):
    """GPTQ by gptqmodel, which follows auto_gptq; its packed tensors are kept as they come.

    Paper: Frantar et al. 2022, arXiv:2210.17323; https://github.com/ModelCloud/GPTQModel
    Raises: IncompatibleError without the interpreter or the library
    """

    name = "gptqmodel"
    needs_cuda = False

    @dataclass(frozen=True, kw_only=True)
    class Config(ExternalGPTQConfig):
        """The interpreter, and the library's options."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [GPTQModel]
