"""Norm positions against the survey's table of formulas, in a real block."""

import pytest
import torch
from composed import causal_view, tiny


@pytest.mark.parametrize("name", ["pre", "post", "sandwich"])
@torch.no_grad()
def test_a_block_equals_the_formula(name):
    model = tiny(norm_position=name, norm="layernorm", shape={"bias": True}).double()
    for parameter in model.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)) * 0.1)
    block, position = model.model.layers[0], model.model.position
    x = torch.randn(2, 7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def attend(h):
        return block.self_attn(h, causal_view(7), position=position)

    def apply(x, sublayer, norms):
        if name == "pre":
            return x + sublayer(norms[0](x))
        if name == "post":
            return norms[0](x + sublayer(x))
        return x + norms[1](sublayer(norms[0](x)))

    wanted = apply(apply(x, attend, block.attn_norms), block.mlp, block.mlp_norms)
    torch.testing.assert_close(block(x, causal_view(7), position), wanted)
    assert isinstance(model.model.norm, torch.nn.Identity) == (name == "post")
