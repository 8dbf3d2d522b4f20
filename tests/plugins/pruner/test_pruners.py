"""The pruners against hand calculations, dense float64 references and exact least squares."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tiny
import torch
from torch import Tensor

from harness import Calibration, ConfigError, Hessian, Pruner, SquaredNorms, inverse_factor, output_error
from harness.model.sparsity import sparsity, weights_by_layer
from harness.ops.calibration import walk
from harness.ops.packed_linear import linear_layers, weight_matrix


def pruner(name: str, **options: Any) -> Pruner:
    return tiny.choose("pruner", name, **options).build()  # type: ignore[no-any-return]


def layer_data(rows: int = 256, inputs: int = 48, outputs: int = 20) -> tuple[Tensor, Tensor]:
    """A weight and correlated inputs of different sizes, the same in every test."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(inputs, inputs, generator=generator) / inputs**0.5
    x = torch.randn(rows, inputs, generator=generator) @ mixing
    sizes = torch.linspace(0.2, 3, inputs)[torch.randperm(inputs, generator=generator)]
    return torch.randn(outputs, inputs, generator=generator), x * sizes


def gathered(kind: type[Hessian] | type[SquaredNorms], *batches: Tensor) -> Any:
    inputs = kind(batches[0].shape[1], batches[0].device)
    for x in batches:
        inputs.add(x)
    return inputs


def test_magnitude_compares_over_the_whole_layer() -> None:
    weight = torch.tensor([[4.0, -3.0, 5.0, 6.0], [1.0, -0.5, 2.0, 0.1]])
    found = pruner("magnitude").prune_layer(weight, None)
    assert found.tolist() == [[4, -3, 5, 6], [0, 0, 0, 0]]
    found = pruner("magnitude", pattern="2:4").prune_layer(weight, None)
    assert found.tolist() == [[0, 0, 5, 6], [1, 0, 2, 0]]
    found = pruner("magnitude", sparsity=0.75).prune_layer(weight, None)
    assert found.tolist() == [[0, 0, 5, 6], [0, 0, 0, 0]]


def test_wanda_by_hand() -> None:
    """Norms 1, 2, 8, 3 make the scores |W_ij| ||X_j||: 4 0 8 3 / 3 4 8 9 / 3 2 0 6, compared by row."""
    weight = torch.tensor([[4.0, 0.0, 1.0, -1.0], [3.0, -2.0, -1.0, -3.0], [-3.0, 1.0, 0.0, 2.0]])
    x = torch.tensor([[0.6, 0.0, 8.0, 3.0], [0.8, -2.0, 0.0, 0.0]])
    assert x.norm(dim=0).tolist() == pytest.approx([1, 2, 8, 3])
    expected = [[4, 0, 1, 0], [0, 0, -1, -3], [-3, 0, 0, 2]]
    for batches in ([x], [x[:1], x[1:]]):
        inputs = gathered(SquaredNorms, *batches)
        assert pruner("wanda").prune_layer(weight.clone(), inputs).tolist() == expected
        assert pruner("wanda", pattern="2:4").prune_layer(weight.clone(), inputs).tolist() == expected


@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"sparsity": 0.75}, {"pattern": "2:4"}], ids=str)
def test_wanda_equals_its_formula(options: dict[str, Any]) -> None:
    """One row and one group at a time, as the paper's figure has it; 2:4 in groups of 4 inputs a row."""
    weight, x = layer_data()
    scores = weight.double().abs() * x.double().square().sum(0).sqrt()
    removed = torch.zeros_like(scores, dtype=torch.bool)
    for row in range(len(weight)):
        width = 4 if options.get("pattern") else weight.shape[1]
        share = options.get("sparsity", 0.5)
        for start in range(0, weight.shape[1], width):
            group = scores[row, start : start + width].tolist()
            lowest = sorted(range(width), key=lambda i: group[i])[: int(width * share)]
            removed[row, [start + i for i in lowest]] = True
    found = pruner("wanda", **options).prune_layer(weight.clone(), gathered(SquaredNorms, x))
    assert torch.equal(found == 0, removed)
    assert torch.equal(found[~removed], weight[~removed]), "what stays keeps its value"


def sparsegpt_reference(
    weight: Tensor, hessian: Tensor, *, share: float, block: int, group: tuple[int, int] | None
) -> Tensor:
    """Algorithm 1 without a Cholesky factor: the inverse of what is left of the damped Hessian, each time.

    A weight w_c of what is left costs w_c^2 / [H^-1]_cc (optimal brain surgeon); removing it moves those
    after it by -w_c / [H^-1]_cc times the column of H^-1.
    """
    rest, h = weight.double().clone(), hessian.double()
    inputs = weight.shape[1]
    h = h + 0.01 * h.diagonal().mean() * torch.eye(inputs).double()
    left = [torch.linalg.inv(h[c:, c:]) for c in range(inputs)]
    removed = torch.zeros_like(rest, dtype=torch.bool)
    width = group[1] if group else block
    for column in range(inputs):
        if column % width == 0:
            columns = range(column, min(column + width, inputs))
            cost = torch.stack([rest[:, c] ** 2 / left[c][0, 0] for c in columns], dim=1)
            if group:
                for row in range(len(rest)):
                    for place in cost[row].argsort()[: group[1] - group[0]]:
                        removed[row, column + int(place)] = True
            else:
                lowest = cost.flatten().argsort()[: round(cost.numel() * share)]
                removed[lowest // len(columns), column + lowest % len(columns)] = True
        gone = torch.where(removed[:, column], rest[:, column], 0.0) / left[column][0, 0]
        rest[:, column:] -= gone[:, None] * left[column][0]
        rest[:, column] = torch.where(removed[:, column], 0.0, rest[:, column])
    return rest


@pytest.mark.parametrize(
    ("options", "group"),
    [
        ({"sparsity": 0.5}, None),
        ({"sparsity": 0.7, "block_size": 16}, None),
        ({"sparsity": 0.6, "block_size": 20}, None),
        ({"pattern": "2:4"}, (2, 4)),
        ({"pattern": "4:8", "block_size": 10}, (4, 8)),
        ({"pattern": "1:3"}, (1, 3)),
    ],
    ids=str,
)
def test_sparsegpt_equals_its_algorithm(options: dict[str, Any], group: tuple[int, int] | None) -> None:
    weight, x = layer_data()
    weight, x = weight.double(), x.double()
    moments = gathered(Hessian, x)
    expected = sparsegpt_reference(
        weight,
        moments.sum,
        share=options.get("sparsity", 0.5),
        block=options.get("block_size", 128),
        group=group,
    )
    found = pruner("sparsegpt", **options).prune_layer(weight.clone(), moments)
    assert torch.equal(found == 0, expected == 0)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-10)


def test_sparsegpt_is_exact_where_what_goes_comes_first() -> None:
    """Optimal brain surgeon: the weights that stay solve the least squares of all that was removed."""
    torch.manual_seed(0)
    x = torch.randn(64, 8).double() @ torch.randn(8, 8).double()
    weight = torch.tensor([[1e-3, -1e-3, 1e-3, 2e-3, 5.0, -4.0, 6.0, 7.0]]).double()
    found = pruner("sparsegpt", damping=0.0).prune_layer(weight.clone(), gathered(Hessian, x))
    solved = torch.linalg.lstsq(x[:, 4:], (x @ weight.T)).solution.T
    assert found[0, :4].tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(found[:, 4:], solved, rtol=1e-8, atol=1e-10)


def test_the_factor_s_diagonal_is_what_the_paper_calls_inverse_hessian() -> None:
    """U_cc^2 = [(H_c:)^-1]_cc, the inverse of what is left of the Hessian when column c is met."""
    _, x = layer_data(inputs=12)
    hessian = (x.T @ x).double()
    factor = inverse_factor(hessian, 0.0)
    left = [float(torch.linalg.inv(hessian[c:, c:])[0, 0]) for c in range(12)]
    assert factor.diagonal().square().tolist() == pytest.approx(left)


@pytest.mark.parametrize("options", [{"sparsity": 0.5}, {"sparsity": 0.6}, {"pattern": "2:4"}], ids=str)
def test_what_knows_more_errs_less(options: dict[str, Any]) -> None:
    weight, x = layer_data(rows=512)
    moments = gathered(Hessian, x)
    inputs = {"magnitude": None, "wanda": gathered(SquaredNorms, x), "sparsegpt": moments}
    errors = [
        output_error(moments.sum, weight, pruner(name, **options).prune_layer(weight.clone(), read))
        for name, read in inputs.items()
    ]
    assert errors[2] < errors[1] < errors[0]


def test_an_input_that_is_always_zero_loses_its_weights_first() -> None:
    weight, x = layer_data()
    x[:, 7] = 0
    for name, kind in (("wanda", SquaredNorms), ("sparsegpt", Hessian)):
        found = pruner(name).prune_layer(weight.clone(), gathered(kind, x))
        assert torch.isfinite(found).all()
        assert not found[:, 7].any(), name


def calibration(vocabulary: int, count: int = 3) -> Calibration:
    generator = torch.Generator().manual_seed(0)
    batches = [torch.randint(3, vocabulary, (4, 32), generator=generator) for _ in range(count)]
    return Calibration(batches_BT=batches, sha256="")


@pytest.mark.parametrize("name", ["magnitude", "wanda", "sparsegpt"])
def test_gpt2_stores_its_weights_the_other_way(name: str) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=64, n_positions=64)
    model = pruner(name, pattern="2:4").prune(GPT2LMHeadModel(config), calibration(64))
    for layer in linear_layers(model).values():
        groups = weight_matrix(layer).unflatten(1, (-1, 4))
        assert ((groups != 0).sum(-1) == 2).all(), "along the inputs of each output"
    assert sparsity(model) == 0.5


@pytest.mark.parametrize("name", ["magnitude", "wanda"])
def test_fused_experts_are_pruned_each_and_fused_again(name: str) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    torch.manual_seed(0)
    config = MixtralConfig(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_local_experts=4,
    )
    before = MixtralForCausalLM(config)
    names = {name for name, _ in weights_by_layer(before)}
    model = pruner(name).prune(before, calibration(64, count=8))
    found = dict(weights_by_layer(model))
    assert set(found) == names
    assert any(weight.ndim == 3 for weight in found.values())
    for weight in found.values():
        share = (weight == 0).float().mean(dim=(-1, -2))
        assert torch.allclose(share, torch.tensor(0.5), atol=0.02)


def test_layers_outside_blocks_are_pruned_once() -> None:
    """The walk meets every layer once; a second time it would be fitted to its own pruned weights."""
    visits: list[str] = []
    model, data = tiny.llama(dim=32), calibration(tiny.VOCABULARY)
    model.extra = torch.nn.Linear(32, 32)
    model.register_forward_hook(lambda module, inputs, output: module.extra(torch.ones(1, 32)) and None)
    walk(model, data.batches_BT, lambda name, x, number: None, visits.extend)
    assert sorted(visits) == sorted(linear_layers(model))
    assert visits[-1] == "extra"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sparsity": 0.0}, r"pruner\.sparsity=0\.0 must lie between 0 and 1"),
        ({"sparsity": 1.0}, r"pruner\.sparsity=1\.0 must lie between"),
        ({"pattern": "4:2"}, r"pruner\.pattern=4:2 must be n:m with 0 < n < m"),
        ({"pattern": "two"}, r"must be n:m"),
        ({"pattern": "1:4", "sparsity": 0.5}, r"contradicts pruner\.pattern=1:4, which removes 0\.75"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        pruner("magnitude", **options)


def test_a_pattern_that_does_not_divide_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"layer .*q_proj: pruner\.pattern=2:5 does not divide its 32 in"):
        pruner("magnitude", pattern="2:5").prune(tiny.llama(dim=32), None)
