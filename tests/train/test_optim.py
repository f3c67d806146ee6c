"""Each update rule against its formula, and against the claim it is known for."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from dlsys.spec.train.optimizer import Optimizer
from dlsys.train import optim

NAMES = ["gd", "sgd", "minibatch-sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta"]
NAMES += ["adam", "adamw", "adamax", "nadam", "yogi"]


def build(name: str, parameters: list[nn.Parameter], **options: Any) -> torch.optim.Optimizer:
    section = TypeAdapter(Optimizer).validate_python({"name": name, **options})
    return optim.build(section, parameters)


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def follow(optimizer: torch.optim.Optimizer, gradients: Callable[[int], Tensor], steps: int) -> list[Tensor]:
    """The iterates of the first parameter under given gradients; t counts from 1."""
    x = optimizer.param_groups[0]["params"][0]
    path = []
    for t in range(1, steps + 1):
        x.grad = gradients(t).clone()
        optimizer.step()
        path.append(x.detach().clone())
    return path


def noise(seed: int = 0, dims: int = 3) -> Callable[[int], Tensor]:
    drawn = torch.randn(200, dims, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return lambda t: drawn[t - 1]


def steps_to_solve(name: str, curvatures: Tensor, limit: int = 5000, **options: Any) -> int:
    """Updates until Σ ½·c·x² has fallen to 1e-8 of its start; `limit` if it never does."""
    x = nn.Parameter(torch.ones_like(curvatures))
    optimizer = build(name, [x], **options)
    start = 0.5 * curvatures.sum()
    for t in range(limit):
        loss = 0.5 * (curvatures * x * x).sum()
        if loss < 1e-8 * start:
            return t
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return limit


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_descends_and_survives_its_state_dict(name: str) -> None:
    x = parameter(1.0, -2.0, 3.0)
    descent = build(name, [x])
    for _ in range(30):
        x.grad = x.detach().clone()
        descent.step()
    assert float(x.detach().norm()) < math.sqrt(14)

    def start() -> nn.Parameter:
        # fp32, as in training: torch keeps nadam's running product in it, and casts on loading.
        return nn.Parameter(torch.tensor([1.0, -2.0, 3.0]))

    def gradients(t: int) -> Tensor:
        return drawn(t).float()

    drawn = noise()
    path = follow(build(name, [start()]), gradients, 20)
    first = build(name, [start()])
    middle = follow(first, gradients, 7)[-1]
    second = build(name, [nn.Parameter(middle)])
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    rest = follow(second, lambda t: gradients(t + 7), 13)
    assert torch.equal(rest[-1], path[-1])


def test_options_reach_the_rule() -> None:
    given = {"lr": 0.3, "betas": (0.8, 0.95), "eps": 1e-5, "weight_decay": 0.02}
    for name in ("adam", "adamw", "adamax", "nadam", "yogi"):
        defaults = build(name, [parameter(1.0)], **given).defaults
        assert {key: defaults[key] for key in given} == given
    nesterov = build("sgd", [parameter(1.0)], momentum=0.5, nesterov=True).defaults
    assert nesterov["nesterov"]
    assert nesterov["momentum"] == 0.5
    assert build("rmsprop", [parameter(1.0)], alpha=0.7, momentum=0.4).defaults["alpha"] == 0.7


def test_gd_converges_below_two_over_l_and_diverges_above() -> None:
    curvatures = torch.tensor([4.0, 1.0], dtype=torch.float64)
    assert steps_to_solve("gd", curvatures, lr=0.95 * 2 / 4) < 500
    x = parameter(1.0, 1.0)
    path = follow(build("gd", [x], lr=1.05 * 2 / 4), lambda _: curvatures * x.detach(), 100)
    assert float(path[-1].norm()) > 1e3


def test_sgd_with_one_row_a_step_reaches_least_squares() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(200, 4, dtype=torch.float64, generator=generator)
    targets = features @ torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    targets += 0.1 * torch.randn(200, dtype=torch.float64, generator=generator)
    best = torch.linalg.lstsq(features, targets[:, None]).solution[:, 0]
    x = nn.Parameter(torch.zeros(4, dtype=torch.float64))
    optimizer = build("sgd", [x], lr=0.01)
    for row in torch.randint(200, (3000,), generator=generator).tolist():
        x.grad = (features[row] @ x.detach() - targets[row]) * features[row]
        optimizer.step()
    assert float((x.detach() - best).norm() / best.norm()) < 0.01


def test_minibatch_variance_falls_as_one_over_b() -> None:
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(1000, 5, dtype=torch.float64, generator=generator)
    targets = torch.randn(1000, dtype=torch.float64, generator=generator)
    scaled = {}
    for size in (1, 4, 16, 64):
        updates = []
        for _ in range(800):
            x = nn.Parameter(torch.zeros(5, dtype=torch.float64))
            optimizer = build("minibatch-sgd", [x], lr=1.0)
            rows = torch.randint(1000, (size,), generator=generator)
            (0.5 * (features[rows] @ x - targets[rows]) ** 2).mean().backward()
            optimizer.step()
            updates.append(x.detach())
        scaled[size] = float(torch.stack(updates).var(0).sum()) * size
    for size in (4, 16, 64):
        assert scaled[size] == pytest.approx(scaled[1], rel=0.12)


def test_momentum_has_its_terminal_velocity() -> None:
    path = follow(
        build("momentum", [parameter(0.0)], lr=0.1, momentum=0.9),
        lambda _: torch.ones(1, dtype=torch.float64),
        500,
    )
    assert float(path[-2] - path[-1]) == pytest.approx(0.1 * 1.0 / (1 - 0.9), rel=1e-9)


def test_ravine_takes_momentum_fewer_steps_and_nesterov_fewer_still() -> None:
    curvatures = torch.tensor([100.0, 1.0], dtype=torch.float64)
    plain = steps_to_solve("gd", curvatures, lr=2 / 101)  # the best constant rate: 2 / (L + μ)
    heavy = steps_to_solve("momentum", curvatures, lr=1 / 100, momentum=0.9)
    ahead = steps_to_solve("nesterov", curvatures, lr=1 / 100, momentum=0.9)
    assert ahead < heavy < plain / 2


def test_nesterov_is_the_lookahead_form() -> None:
    curvatures = torch.tensor([5.0, 1.0, 0.2], dtype=torch.float64)
    x = nn.Parameter(torch.ones(3, dtype=torch.float64))
    optimizer = build("nesterov", [x], lr=0.1, momentum=0.8)
    theta, velocity = torch.ones(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(50):
        # torch's parameter is the point looked ahead to, θ + β·v.
        ahead = theta + 0.8 * velocity
        torch.testing.assert_close(x.detach(), ahead, rtol=1e-12, atol=1e-14)
        velocity = 0.8 * velocity - 0.1 * curvatures * ahead
        theta = theta + velocity
        x.grad = curvatures * x.detach()
        optimizer.step()


# One step of each rule in plain Python: (state, g, t) → the update to add. State is a dict that
# starts empty.


def adagrad(s: dict[str, Tensor], g: Tensor, t: int) -> Tensor:
    s["sum"] = s.get("sum", 0) + g**2
    return -0.01 * g / (s["sum"].sqrt() + 1e-10)


def rmsprop(s: dict[str, Tensor], g: Tensor, t: int) -> Tensor:
    s["mean"] = 0.99 * s.get("mean", 0) + 0.01 * g**2
    return -0.01 * g / (s["mean"].sqrt() + 1e-8)


def adadelta(s: dict[str, Tensor], g: Tensor, t: int) -> Tensor:
    s["g"] = 0.9 * s.get("g", 0) + 0.1 * g**2
    before = s.get("d", torch.zeros_like(g))
    update = -(before + 1e-6).sqrt() / (s["g"] + 1e-6).sqrt() * g
    s["d"] = 0.9 * before + 0.1 * update**2
    return update


def adam(s: dict[str, Tensor], g: Tensor, t: int) -> Tensor:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
    return -1e-3 * (s["m"] / (1 - 0.9**t)) / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-8)


def adamax(s: dict[str, Tensor], g: Tensor, t: int) -> Tensor:
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["u"] = torch.maximum(0.999 * s.get("u", torch.zeros_like(g)), g.abs() + 1e-8)
    return -2e-3 / (1 - 0.9**t) * s["m"] / s["u"]


def nadam(s: dict[str, Tensor], g: Tensor, t: int) -> Tensor:
    now, then = (0.9 * (1 - 0.5 * 0.96 ** (k * 4e-3)) for k in (t, t + 1))
    s["product"] = s.get("product", 1.0) * now
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g**2
    mean = then * s["m"] / (1 - s["product"] * then) + (1 - now) * g / (1 - s["product"])
    return -2e-3 * mean / ((s["v"] / (1 - 0.999**t)).sqrt() + 1e-8)


def yogi(s: dict[str, Tensor], g: Tensor, t: int) -> Tensor:
    s["m"] = 0.9 * s.get("m", 1e-6) + 0.1 * g
    before = s.get("v", torch.full_like(g, 1e-6))
    s["v"] = before - 0.001 * torch.sign(before - g**2) * g**2
    return -0.01 * s["m"] / (s["v"].sqrt() + 1e-3)


@pytest.mark.parametrize("rule", [adagrad, rmsprop, adadelta, adam, adamax, nadam, yogi])
def test_hundred_steps_equal_the_formula(rule: Callable[[dict[str, Tensor], Tensor, int], Tensor]) -> None:
    gradients = noise(seed=3)
    path = follow(build(rule.__name__, [parameter(1.0, -2.0, 3.0)]), gradients, 100)
    x, state = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), dict[str, Tensor]()
    for t in range(1, 101):
        x = x + rule(state, gradients(t), t)
        torch.testing.assert_close(path[t - 1], x, rtol=1e-10, atol=1e-12)


def test_adamw_decays_apart_from_adam() -> None:
    gradients, lr, decay = noise(seed=4), 1e-3, 0.1
    path = follow(build("adamw", [parameter(1.0, -2.0, 3.0)], weight_decay=decay), gradients, 100)
    x, state = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64), dict[str, Tensor]()
    for t in range(1, 101):
        x = x * (1 - lr * decay) + adam(state, gradients(t), t)
    torch.testing.assert_close(path[-1], x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_adams_first_step_is_the_rate(scale: float) -> None:
    path = follow(
        build("adam", [parameter(0.0)], lr=0.02), lambda _: torch.full((1,), scale, dtype=torch.float64), 1
    )
    assert float(path[0]) == pytest.approx(-0.02, rel=1e-4)


def test_adagrad_learns_rare_features_faster() -> None:
    generator = torch.Generator().manual_seed(5)
    # Three features of every row, one of each hundredth.
    features = torch.randn(3000, 4, dtype=torch.float64, generator=generator)
    features[:, 3] = (torch.rand(3000, generator=generator) < 0.01).double()
    targets = features @ torch.ones(4, dtype=torch.float64)

    def rare_error(name: str, lr: float) -> float:
        x = nn.Parameter(torch.zeros(4, dtype=torch.float64))
        optimizer = build(name, [x], lr=lr)
        for start in range(0, 3000, 10):
            rows = slice(start, start + 10)
            x.grad = features[rows].T @ (features[rows] @ x.detach() - targets[rows]) / 10
            optimizer.step()
        found = x.detach() - 1
        # A rate counts only if it keeps the frequent features stable.
        return float(found[3].abs()) if float(found[:3].norm()) < 0.1 else math.inf

    rates = [0.03, 0.1, 0.3, 1.0]
    assert min(rare_error("adagrad", lr) for lr in rates) < 0.5 * min(rare_error("sgd", lr) for lr in rates)


def test_rmsprop_follows_a_target_that_adagrad_loses() -> None:
    def last_error(name: str) -> float:
        x = parameter(0.0)
        optimizer = build(name, [x], lr=0.05)
        error = 0.0
        for t in range(2000):
            target = 5.0 * math.sin(t / 100)
            x.grad = x.detach() - target
            optimizer.step()
            error += abs(float(x.detach()) - target) / 1000 if t >= 1000 else 0.0
        return error

    assert last_error("rmsprop") < 0.5
    assert last_error("adagrad") > 4 * last_error("rmsprop")


def test_adadelta_converges_without_a_rate() -> None:
    for scale in (1e-2, 1.0, 1e2):  # the rule is free of the loss's unit
        x = parameter(1.0, -1.0)
        path = follow(build("adadelta", [x]), lambda _, s=scale, x=x: s * x.detach(), 1500)  # type: ignore[misc]
        assert float(path[-1].norm()) < 0.05


def test_yogi_keeps_its_rate_after_a_spike() -> None:
    def spiky(t: int) -> Tensor:
        return torch.full((1,), 10.0 if t % 4000 == 1 else 1e-2, dtype=torch.float64)

    def largest_quiet_update(name: str) -> float:
        path = torch.stack(follow(build(name, [parameter(0.0)], lr=0.01, eps=1e-3), spiky, 4000))
        return float((path[1:] - path[:-1])[500:].abs().max())

    # The same small gradient all along: Adam's steps grow as it forgets the spike, Yogi's do not.
    assert largest_quiet_update("adam") > 3 * largest_quiet_update("yogi")
    path = torch.stack(follow(build("yogi", [parameter(0.0)], lr=0.01), spiky, 4002))
    assert float((path[1:] - path[:-1]).abs().max()) < 0.05


def test_yogis_closure_gives_the_loss() -> None:
    x = parameter(2.0)
    optimizer = build("yogi", [x])

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = (x * x).sum()
        loss.backward()
        return loss.detach()

    assert optimizer.step(closure) == 4.0  # type: ignore[arg-type]
    assert float(x.detach()) < 2.0


@pytest.mark.parametrize("name", ["sgd", "momentum", "nesterov", "yogi", "adam"])
def test_weight_decay_is_the_gradient_of_half_its_square(name: str) -> None:
    gradients, decay = noise(seed=6), 0.3
    path = follow(build(name, [parameter(1.0, -2.0, 3.0)], weight_decay=decay), gradients, 30)
    x = parameter(1.0, -2.0, 3.0)
    plain = follow(build(name, [x]), lambda t: gradients(t) + decay * x.detach(), 30)
    torch.testing.assert_close(path[-1], plain[-1], rtol=1e-12, atol=1e-14)


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_yogi_updates_sharded_parameters() -> None:
    mesh = init_device_mesh("cpu", (1,))
    plain = nn.Parameter(torch.randn(4, 3, generator=torch.Generator().manual_seed(7)))
    sharded = nn.Parameter(distribute_tensor(plain.detach().clone(), mesh, [Shard(0)]))
    for x in (plain, sharded):
        optimizer = build("yogi", [x], weight_decay=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            (x**2).sum().backward()
            optimizer.step()
    assert isinstance(optimizer.state[sharded]["exp_avg"], DTensor)
    assert torch.equal(sharded.detach().full_tensor(), plain.detach())  # type: ignore[attr-defined]
