"""Effect proofs of the model axes: the kernel that ran, and the cache that was kept."""

import pytest
from composed import choose, tiny

from harness.model.effects import model_effects


@pytest.mark.parametrize(
    ("name", "options", "kernel", "cached"),
    [
        ("full", {}, "_scaled_dot_product_flash_attention_for_cpu", 2 * 2 * 4 * 8 * 4),
        ("flash", {}, "_scaled_dot_product_flash_attention_for_cpu", 2 * 2 * 4 * 8 * 4),
        ("multi_query", {}, "_scaled_dot_product_flash_attention_for_cpu", 2 * 2 * 1 * 8 * 4),
        ("multi_head_latent", {"latent_dim": 6, "rope_dim": 2}, "scaled_dot_product", 2 * (6 + 2) * 4),
        ("retention", {}, None, 2 * 4 * 8 * 8 * 4 / 16),
    ],
)
def test_kernels_and_cache_are_measured(name, options, kernel, cached):
    choice = choose("attention", name, **options)
    (found,) = model_effects(tiny(attention=(name, options)), {"attention": choice}).values()
    assert any(kernel in ran for ran in found["kernels"]) if kernel else not found["kernels"]
    assert found["cache_bytes_per_token"] == cached
