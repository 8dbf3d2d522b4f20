"""Encoder-decoder: a bidirectional encoder whose output every decoder block reads."""

from harness import Architecture, Method, hookimpl


class EncoderDecoder(Architecture):
    """Encoder over the source, causal decoder with cross-attention, as in T5.

    Without `encoder_input_ids` it is a causal decoder; `generate` takes the prompt as the source.

    Paper: Vaswani et al. 2017, arXiv:1706.03762; Raffel et al. 2019, arXiv:1910.10683, section 2.1
    """

    name = "encoder_decoder"

    @classmethod
    def has_encoder(cls) -> bool:
        return True


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [EncoderDecoder]
