"""Serial adapters: a bottleneck after each sublayer."""

from __future__ import annotations

from dataclasses import dataclass

from harness import Method, hookimpl

from ._bottleneck import BottleneckConfig, BottleneckPeft, Serial


class AdapterSerial(BottleneckPeft):
    """Bottleneck layers after attention and after feed-forward, before the residual sum.

    Paper: Houlsby et al. 2019, arXiv:1902.00751, section 2.1
    Differs: ReLU; norms stay frozen
    """

    name = "adapter_serial"
    usual = ("o_proj", "down_proj")
    wrapper = Serial

    @dataclass(frozen=True, kw_only=True)
    class Config(BottleneckConfig):
        """Width and targets."""


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [AdapterSerial]
