"""Greedy decoding: always the likeliest token."""

from typing import Any

from harness import Decoding, Method, hookimpl


class Greedy(Decoding):
    """Takes the likeliest token at every step."""

    name = "greedy"

    def options(self) -> dict[str, Any]:
        return {"do_sample": False, "num_beams": 1}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Greedy]
