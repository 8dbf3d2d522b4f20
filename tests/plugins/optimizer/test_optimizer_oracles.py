"""Optimizers against independent implementations: ten steps equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from harness.errors import ConfigError
from harness.registry.known import registry

RATE = 1e-2


def model(*, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 20), nn.Tanh(), nn.LayerNorm(20), nn.Linear(20, 6)).double()


def descend(net: nn.Module, optimizer: Any, steps: int = 10) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(32, 12, generator=generator, dtype=torch.float64)
        y = torch.randn(32, 6, generator=generator, dtype=torch.float64)
        x, y = (value.to(next(net.parameters()).dtype) for value in (x, y))
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()]


def ours(name: str, net: nn.Module, **options: Any) -> Any:
    method = registry().get("optimizer", name)
    return method(method.Config(**options)).build(net, RATE)  # type: ignore[attr-defined]


def groups(net: nn.Module, decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in net.parameters() if p.ndim >= 2], "weight_decay": decay},
        {"params": [p for p in net.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]


def transformers_adafactor(net: nn.Module) -> Any:
    from transformers import Adafactor

    return Adafactor(groups(net, 0.0), lr=RATE, scale_parameter=True, relative_step=False, warmup_init=False)


def oracle(library_name: str, *, decay: float = 0.0, **options: Any) -> Callable[[nn.Module], Any]:
    def make(net: nn.Module) -> Any:
        import pytorch_optimizer

        return getattr(pytorch_optimizer, library_name)(groups(net, decay), lr=RATE, **options)

    return make


CASES = {
    "sgd": (
        {"weight_decay": 0.1, "nesterov": True},
        lambda net: torch.optim.SGD(groups(net, 0.1), lr=RATE, momentum=0.9, nesterov=True),
    ),
    "adam": (
        {"weight_decay": 0.1},
        lambda net: torch.optim.Adam(groups(net, 0.1), lr=RATE, betas=(0.9, 0.95), foreach=False),
    ),
    "adamw": (
        {"weight_decay": 0.1},
        lambda net: torch.optim.AdamW(groups(net, 0.1), lr=RATE, betas=(0.9, 0.95), foreach=False),
    ),
    "adafactor": ({}, transformers_adafactor),
    "lion": (
        {"weight_decay": 0.1},
        oracle("Lion", betas=(0.9, 0.99), weight_decouple=True, fixed_decay=False, decay=0.1),
    ),
    "shampoo": ({"weight_decay": 0.0}, oracle("Shampoo", preconditioning_compute_steps=1)),
    "soap": (
        {"weight_decay": 0.01, "every": 3},
        oracle("SOAP", betas=(0.95, 0.95), precondition_frequency=3, decay=0.01),
    ),
    "schedule_free": (
        {"weight_decay": 0.1},
        oracle("ScheduleFreeAdamW", betas=(0.9, 0.999), decay=0.1),
    ),
    "adan": ({"weight_decay": 0.1}, oracle("Adan", betas=(0.98, 0.92, 0.99), decay=0.1)),
    "ademamix": (
        {"weight_decay": 0.1, "alpha": 8.0},
        oracle("AdEMAMix", betas=(0.9, 0.999, 0.9999), alpha=8.0, weight_decouple=True, decay=0.1),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_ten_steps_equal_the_oracle(name: str) -> None:
    options, make = CASES[name]
    left, right = model(), model()
    found, expected = descend(left, ours(name, left, **options)), descend(right, make(right))
    # transformers' Adafactor keeps factored moments in float32, SOAP's oracle its QR steps, and
    # ScheduleFreeAdamW adds 1e-15 to second moments, which are 1e-7 at least here.
    error = {"adafactor": 1e-6, "soap": 1e-5, "schedule_free": 1e-8}.get(name, 1e-10)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=error, atol=error)


@pytest.mark.parametrize("name", ["soap", "schedule_free"])
def test_thirty_steps_equal_it_too(name: str) -> None:
    """Where moments have full rank: in directions without any gradient so far, bases part by rounding."""
    options, make = {
        "soap": (
            {"weight_decay": 0.01},
            oracle("SOAP", betas=(0.95, 0.95), precondition_frequency=10, decay=0.01),
        ),
        "schedule_free": CASES["schedule_free"],
    }[name]
    left, right = model(), model()
    found = descend(left, ours(name, left, **options), steps=30)
    for a, b in zip(found, descend(right, make(right), steps=30), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


def test_schedule_free_equals_its_authors_package() -> None:
    import schedulefree

    left, right = model(), model()
    theirs = schedulefree.AdamWScheduleFree(
        groups(right, 0.1), lr=RATE, betas=(0.9, 0.999), eps=1e-8, foreach=False
    )
    theirs.train()
    found = descend(left, ours("schedule_free", left, weight_decay=0.1), steps=30)
    for a, b in zip(found, descend(right, theirs, steps=30), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


def test_schedule_free_is_the_papers_algorithm_and_ends_on_the_average() -> None:
    net = model()
    optimizer = ours("schedule_free", net, weight_decay=0.0)
    x = [p.detach().clone() for p in net.parameters()]
    z, square, weight_sum = [v.clone() for v in x], [torch.zeros_like(v) for v in x], 0.0
    for step in range(1, 11):
        weight_sum += RATE**2
        for i, p in enumerate(net.parameters()):
            y = 0.1 * z[i] + 0.9 * x[i]
            torch.testing.assert_close(p.detach(), y, rtol=1e-10, atol=1e-12)
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(step), dtype=p.dtype)
            square[i] = 0.999 * square[i] + 0.001 * p.grad**2
            z[i] = z[i] - RATE * p.grad / ((square[i] / (1 - 0.999**step)).sqrt() + 1e-8)
            x[i] = x[i] + RATE**2 / weight_sum * (z[i] - x[i])
        optimizer.step()
    registry().get("optimizer", "schedule_free")().finish(optimizer)  # type: ignore[attr-defined]
    for p, average in zip(net.parameters(), x, strict=True):
        torch.testing.assert_close(p.detach(), average, rtol=1e-10, atol=1e-12)


def test_muon_equals_torch_on_hidden_matrices_and_adamw_elsewhere() -> None:
    left, right = model().float(), model().float()
    found = descend(left, ours("muon", left, weight_decay=0.1))
    matrices = [p for p in right.parameters() if p.ndim == 2]
    rest = [p for p in right.parameters() if p.ndim != 2]
    muon = torch.optim.Muon(matrices, lr=RATE, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(rest, lr=RATE, weight_decay=0.0, betas=(0.9, 0.95))

    class Both:
        def zero_grad(self) -> None:
            right.zero_grad()

        def step(self) -> None:
            muon.step()
            adamw.step()

    for a, b in zip(found, descend(right, Both()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_muon_leaves_embeddings_and_head_to_adamw() -> None:
    from harness.conformance.tiny import TinyModel

    net = TinyModel()
    optimizer = ours("muon", net)
    hidden = {id(p) for group in optimizer.param_groups if group["orthogonal"] for p in group["params"]}
    assert hidden == {id(net.hidden.weight), id(net.out.weight)}


def test_adam8bit_is_near_adamw_and_stores_bytes() -> None:
    pytest.importorskip("bitsandbytes")

    def wide() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(12, 512), nn.Tanh(), nn.Linear(512, 6))

    left, right = wide(), wide()
    optimizer = ours("adam8bit", left, weight_decay=0.0)
    descend(left, optimizer)
    descend(right, torch.optim.AdamW(right.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.0))
    assert optimizer.state[left[0].weight]["state1"].dtype is torch.uint8  # type: ignore[index]
    assert optimizer.state[left[0].bias]["state1"].dtype is torch.float32  # type: ignore[index]
    before = [p.detach() for p in wide().parameters()]
    for start, a, b in zip(before, left.parameters(), right.parameters(), strict=True):
        moved = (b - start).norm()
        assert (a - b).norm() < 0.1 * moved


def test_sophia_follows_the_paper() -> None:
    """Algorithm 3 written out, the Hessian set by hand."""
    net = model()
    optimizer = ours("sophia", net, weight_decay=0.1, gamma=0.05)
    hessians = [torch.rand_like(p) for p in net.parameters()]
    expected = [p.detach().clone() for p in net.parameters()]
    momenta = [torch.zeros_like(p) for p in expected]
    ordered = [p for group in optimizer.param_groups for p in group["params"]]
    for p, h in zip(net.parameters(), hessians, strict=True):
        optimizer._state(p)["hessian"].copy_(h)
    assert len(ordered) == len(expected)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        for i, p in enumerate(net.parameters()):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            momenta[i] = 0.965 * momenta[i] + 0.035 * p.grad
            decay = 0.1 if p.ndim >= 2 else 0.0
            ratio = momenta[i] / torch.clamp(0.05 * hessians[i], min=1e-12)
            expected[i] = expected[i] * (1 - RATE * decay) - RATE * ratio.clamp(-1, 1)
        optimizer.step()
    for p, value in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(p.detach(), value, rtol=1e-10, atol=1e-12)


def test_sophias_estimate_is_the_gauss_newton_diagonal() -> None:
    """For a linear softmax model E[estimate] is the exact diagonal: sum over tokens of p (1 - p) x^2 / B."""
    from types import SimpleNamespace

    class Linear(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).double())

    net = Linear()
    method = registry().get("optimizer", "sophia")
    sophia: Any = method(method.Config(beta2=0.0))
    optimizer = sophia.build(net, RATE)
    x = torch.randn(1, 50, 3, generator=torch.Generator().manual_seed(1)).double()
    probabilities = (x @ net.w).softmax(-1)[0]
    exact = torch.einsum("tv,td->dv", probabilities * (1 - probabilities), x[0].square()) / 50
    torch.manual_seed(0)
    mean = torch.zeros(3, 4, dtype=torch.float64)
    for _ in range(3000):
        sophia.loss_terms(SimpleNamespace(logits=x @ net.w).__dict__, {})
        sophia.on_gradients(net, 0)
        mean += optimizer.state[net.w]["hessian"] / 3000
    torch.testing.assert_close(mean, exact, rtol=0.12, atol=0.0)


def test_a_batch_that_says_nothing_leaves_sophias_hessian() -> None:
    """One without labels has nothing to draw from, and one in half precision may overflow."""
    net = nn.Linear(2, 3, bias=False)
    sophia = ours("sophia", net)
    sophia.estimate([torch.ones(3, 2)], torch.tensor(4))
    known = sophia.state[net.weight]["hessian"].clone()
    assert known.unique().tolist() == [pytest.approx((1 - 0.99) / 4)]
    sophia.estimate([torch.zeros(3, 2)], torch.tensor(0))
    sophia.estimate([torch.tensor([[torch.inf, 0.0]] * 3)], torch.tensor(4))
    assert torch.equal(sophia.state[net.weight]["hessian"], known)


def warmed(net: nn.Module, optimizer: Any, *, steps: int = 40) -> list[Tensor]:
    """Steps whose rate warms up over ten and then falls, on inputs of another scale each time."""
    generator = torch.Generator().manual_seed(2)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min((step + 1) / 10, 1.5 - step / steps)
        x = torch.randn(32, 12, generator=generator, dtype=torch.float64) * (1 + step % 3)
        y = torch.randn(32, 6, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        (net(x) - y).square().mean().backward()
        optimizer.step()
    return [p.detach() for p in net.parameters()]


UNDER_A_SCHEDULE = {
    "adam": (CASES["adam"], 1e-10),
    "adamw": (CASES["adamw"], 1e-10),
    "lion": (CASES["lion"], 1e-10),
    "sgd": (CASES["sgd"], 1e-10),
    "adan": (CASES["adan"], 1e-10),
    # Weight and decay of the slow moment rise over 30 of the 40 steps.
    "ademamix": (
        (
            {"weight_decay": 0.1, "beta3": 0.999, "warmup_steps": 30},
            oracle(
                "AdEMAMix",
                betas=(0.9, 0.999, 0.999),
                alpha=5.0,
                t_alpha_beta3=30,
                weight_decouple=True,
                decay=0.1,
            ),
        ),
        1e-10,
    ),
    # The oracle's QR steps are in float32; one side of a matrix is not preconditioned here.
    "soap": (
        (
            {"weight_decay": 0.01, "every": 4, "max_dim": 12, "beta1": 0.9, "beta2": 0.98},
            oracle("SOAP", betas=(0.9, 0.98), precondition_frequency=4, decay=0.01, max_precondition_dim=12),
        ),
        1e-5,
    ),
}


@pytest.mark.parametrize("name", UNDER_A_SCHEDULE)
def test_forty_steps_under_a_schedule_equal_the_oracle(name: str) -> None:
    (options, make), error = UNDER_A_SCHEDULE[name]
    left, right = model(seed=3), model(seed=3)
    found, expected = warmed(left, ours(name, left, **options)), warmed(right, make(right))
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=error, atol=error)


def test_a_slow_decay_that_cannot_rise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"beta3=0.5 rises from beta1=0.9 in warmup_steps=10"):
        ours("ademamix", model(), beta3=0.5, warmup_steps=10)
    with pytest.raises(ConfigError, match=r"alpha=-1.0 must not be negative"):
        ours("ademamix", model(), alpha=-1.0)


def test_lamb_equals_its_oracle_on_matrices_and_adam_elsewhere() -> None:
    """The oracle corrects no moment for its start: without decay, the ratio of lengths cancels that.

    Its `adam_debias` leaves out a correction of the rate that would follow that ratio.
    """
    import pytorch_optimizer

    left, right = model(seed=3), model(seed=3)
    found = warmed(left, ours("lamb", left, weight_decay=0.0, eps=1e-30))
    matrices = [p for p in right.parameters() if p.ndim == 2]
    rest = [p for p in right.parameters() if p.ndim != 2]
    lamb = pytorch_optimizer.Lamb(matrices, lr=RATE, betas=(0.9, 0.999), eps=1e-30, adam_debias=True)
    adam = torch.optim.Adam(rest, lr=RATE, betas=(0.9, 0.999), eps=1e-30, foreach=False)

    class Both:
        param_groups = (*lamb.param_groups, *adam.param_groups)

        def zero_grad(self) -> None:
            right.zero_grad()

        def step(self) -> None:
            lamb.step()
            adam.step()

    for a, b in zip(found, warmed(right, Both()), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_lamb_with_decay_is_the_papers_algorithm() -> None:
    """Algorithm 2 written out: the step, decay included, is as long as the matrix times the rate."""
    net = model()
    optimizer = ours("lamb", net, weight_decay=0.1)
    x = [p.detach().clone() for p in net.parameters()]
    m, v = [torch.zeros_like(p) for p in x], [torch.zeros_like(p) for p in x]
    for t in range(1, 11):
        for i, p in enumerate(net.parameters()):
            p.grad = torch.randn(p.shape, generator=torch.Generator().manual_seed(t), dtype=p.dtype)
            m[i] = 0.9 * m[i] + 0.1 * p.grad
            v[i] = 0.999 * v[i] + 0.001 * p.grad**2
            r = m[i] / (1 - 0.9**t) / ((v[i] / (1 - 0.999**t)) ** 0.5 + 1e-6)
            step = r + 0.1 * x[i] if p.ndim == 2 else r
            scale = x[i].square().sum() ** 0.5 / step.square().sum() ** 0.5 if p.ndim == 2 else 1.0
            x[i] = x[i] - RATE * scale * step
        optimizer.step()
        for p, expected in zip(net.parameters(), x, strict=True):
            torch.testing.assert_close(p.detach(), expected, rtol=1e-10, atol=1e-12)


def test_lamb_moves_weights_that_start_at_zero() -> None:
    net = nn.Linear(3, 2, bias=False)
    nn.init.zeros_(net.weight)
    net.weight.grad = torch.tensor([[1.0, -2.0, 0.5], [3.0, 1.0, -1.0]])
    ours("lamb", net).step()
    torch.testing.assert_close(net.weight.detach(), -RATE * net.weight.grad.sign())


def test_schedule_free_under_a_warm_up_equals_its_authors_package() -> None:
    """Weights of the average are the squares of the largest rate so far, in both."""
    import schedulefree

    left, right = model(seed=3), model(seed=3)
    theirs = schedulefree.AdamWScheduleFree(
        groups(right, 0.1), lr=RATE, betas=(0.95, 0.99), eps=1e-8, foreach=False
    )
    theirs.train()
    found = warmed(left, ours("schedule_free", left, weight_decay=0.1, beta1=0.95, beta2=0.99))
    for a, b in zip(found, warmed(right, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", sorted(registry().methods("optimizer")))
def test_one_infinite_gradient_in_a_run_is_as_if_its_batch_had_not_been(name: str) -> None:
    """With moments already there: a number in one weight overflows in the fourth of six steps."""
    from harness.training.gradients import leave_overflow_to_scaler

    ends = []
    for bad in (None, 3):
        net = model().float()
        optimizer: Any = ours(name, net)
        leave_overflow_to_scaler(optimizer)
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        generator = torch.Generator().manual_seed(1)
        for step in range(6):
            x, y = (torch.randn(32, size, generator=generator) for size in (12, 6))
            if bad is None and step == 3:
                continue
            optimizer.zero_grad()
            scaler.scale((net(x) - y).square().mean()).backward()  # type: ignore[no-untyped-call]
            if step == bad:
                last = list(net.parameters())[-1]
                assert last.grad is not None
                last.grad[0] = torch.inf
            scaler.unscale_(optimizer)
            scaler.step(optimizer)
            scaler.update()
            if bad is None:
                continue
            assert scaler.get_scale() == (1024.0 if step < bad else 512.0)
        ends.append([p.detach() for p in net.parameters()])
    for a, b in zip(*ends, strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", sorted(set(registry().methods("optimizer")) - {"schedule_free"}))
def test_a_weight_whose_first_gradient_comes_late_moves_as_if_it_were_alone(name: str) -> None:
    """As torch counts steps, each weight for itself; schedule_free's average counts those of a group."""
    ends = []
    for begin in (0, 3):
        torch.manual_seed(0)
        net = nn.ParameterList([torch.randn(4, 3), torch.randn(4, 6), torch.randn(6), torch.tensor(1.5)])
        optimizer, generator = ours(name, net), torch.Generator().manual_seed(1)
        for step in range(10):
            drawn = [torch.randn(p.shape, generator=generator) for p in net]
            for place, (p, gradient) in enumerate(zip(net, drawn, strict=True)):
                p.grad = gradient if (step >= 3 if place else begin == 0) else None
            if step >= begin:
                optimizer.step()
        ends.append([p.detach() for p in list(net)[1:]])
    for together, alone in zip(*ends, strict=True):
        assert torch.equal(together, alone)
