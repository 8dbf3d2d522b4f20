"""Causal decoder: every token sees itself and what came before."""

from harness import Architecture, Method, hookimpl


class CausalDecoder(Architecture):
    """Decoder-only stack with a lower-triangular mask, as in GPT and Llama.

    Paper: Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training"
    """

    name = "causal_decoder"


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [CausalDecoder]
