"""Dynamic NTK: the base grows with the sequence at hand."""

from typing import Any

from torch import nn

from harness import Context, Method, Rotary, hookimpl, rescale_dynamically, set_length


class DynamicNtk(Context):
    """NTK-aware scaling by the length of each sequence; short ones are read as in training.

    Raises: IncompatibleError for heads of one rotation
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
        factor = self.config.factor
        stretch = factor * length / rotary.max_length - (factor - 1)
        return rotary.rebased(rotary.stretched_base(stretch))

    def rope_parameters(self, rotary: Rotary) -> dict[str, Any]:
        return {"rope_type": "dynamic", "rope_theta": rotary.base, "factor": float(self.config.factor)}


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DynamicNtk]
