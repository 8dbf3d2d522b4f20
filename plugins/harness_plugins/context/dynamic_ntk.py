"""Dynamic NTK: the base grows with the sequence at hand."""

from dataclasses import replace

from torch import nn

from harness import Context, Method, Rotary, hookimpl, inverse_frequencies, rescale_dynamically, set_length


class DynamicNtk(Context):
    """NTK-aware scaling by the current length; short sequences are read as in training.

    Paper: emozilla 2023, in Peng et al. 2023, arXiv:2309.00071, appendix B.2
    Differs: cached keys keep the rotation of the step that made them, as in transformers
    """

    name = "dynamic_ntk"

    def apply(self, model: nn.Module) -> nn.Module:
        length = self.target_length(model)
        rescale_dynamically(model, self.scale)
        set_length(model, length)
        return model

    def scale(self, rotary: Rotary, length: int) -> Rotary:
        if length <= rotary.max_length:
            return rotary
        rotated, factor = rotary.head_dim, self.config.factor
        stretch = factor * length / rotary.max_length - (factor - 1)
        base = rotary.base * stretch ** (rotated / (rotated - 2))
        return replace(rotary, base=base, inv_freq=inverse_frequencies(rotated, base))


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DynamicNtk]
