"""Each regularizer against its closed form, and against the claim it is known for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from pydantic import TypeAdapter
from sklearn.linear_model import ElasticNet as SklearnElasticNet
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from dlsys.errors import UsageError
from dlsys.spec.train.regularizer import Regularizer
from dlsys.train.regularize import Regularizers, clip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    # Matrices this small only lose by being shared out.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def make(*sections: dict[str, Any]) -> Regularizers:
    return Regularizers(TypeAdapter(tuple[Regularizer, ...]).validate_python(sections))


def fit(
    model: nn.Module,
    features: Tensor,
    targets: Tensor,
    regularizers: Regularizers,
    *,
    lr: float,
    steps: int,
    scale: float = 1.0,
) -> float:
    """Full-batch gradient descent on scale × MSE, with a rate that falls to nought; the last loss."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    loss = torch.zeros(())
    for step in range(steps):
        rate = optimizer.param_groups[0]["lr"] = lr * (1 - step / steps)
        optimizer.zero_grad()
        loss = scale * F.mse_loss(model(features), targets)
        loss.backward()
        regularizers.penalize(model.named_parameters())
        optimizer.step()
        regularizers.after_step(model.named_parameters(), rate)
    return float(loss.detach())


def linear(inputs: int) -> nn.Linear:
    model = nn.Linear(inputs, 1, dtype=torch.float64)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    return model


@pytest.fixture(scope="module")
def table() -> tuple[Tensor, Tensor]:
    """120 rows, 8 inputs, of which the last 5 have nothing to do with the target."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(120, 8, dtype=torch.float64, generator=generator)
    truth = torch.tensor([2.0, -1.0, 0.5, 0, 0, 0, 0, 0], dtype=torch.float64)
    noise = 0.1 * torch.randn(120, dtype=torch.float64, generator=generator)
    return features, (features @ truth + 1.0 + noise)[:, None]


def test_l1_zeros_inputs_that_do_not_matter(table: tuple[Tensor, Tensor]) -> None:
    plain, sparse = linear(8), linear(8)
    fit(plain, *table, make(), lr=0.1, steps=600)
    fit(sparse, *table, make({"name": "l1", "strength": 0.1}), lr=0.1, steps=600)
    assert float(plain.weight[0, 3:].detach().abs().max()) > 1e-2
    assert float(sparse.weight[0, 3:].detach().abs().max()) < 1e-3
    assert float(sparse.weight[0, :3].detach().abs().min()) > 0.3


def test_l2_equals_ridge(table: tuple[Tensor, Tensor]) -> None:
    strength, model = 0.3, linear(8)
    fit(model, *table, make({"name": "l2", "strength": strength}), lr=0.2, steps=600)
    features, targets = table
    x, y = features - features.mean(0), targets - targets.mean(0)
    # The minimum of mean (y − xw)² + λ·w²; the bias is free.
    wanted = torch.linalg.solve(x.T @ x / 120 + strength * torch.eye(8, dtype=torch.float64), x.T @ y / 120)
    torch.testing.assert_close(model.weight.detach(), wanted.T, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 1.0])
def test_elastic_net_equals_scikit_learns(table: tuple[Tensor, Tensor], ratio: float) -> None:
    model = linear(8)
    section = {"name": "elastic-net", "strength": 0.2, "l1_ratio": ratio}
    fit(model, *table, make(section), lr=0.1, steps=3000, scale=0.5)  # scikit-learn's loss is ½·MSE
    features, targets = (part.numpy() for part in table)
    known = SklearnElasticNet(alpha=0.2, l1_ratio=ratio, tol=1e-10, max_iter=100_000)
    known.fit(features, targets[:, 0])
    found = model.weight.detach().numpy()[0]
    assert np.linalg.norm(found - known.coef_) < 0.01 * np.linalg.norm(known.coef_)
    assert float(model.bias.detach()) == pytest.approx(known.intercept_, rel=0.01)


def test_penalties_add_up_and_spare_biases() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    for index, parameter in enumerate(model.parameters()):
        parameter.grad = None if index == 4 else torch.ones_like(parameter)
    sections = (
        {"name": "l1", "strength": 0.1},
        {"name": "l2", "strength": 0.2},
        {"name": "elastic-net", "strength": 0.4, "l1_ratio": 0.25},
    )
    make(*sections).penalize(model.named_parameters())
    weight = model[0].weight.detach()
    torch.testing.assert_close(model[0].weight.grad, 1 + (0.1 + 0.1) * weight.sign() + (0.4 + 0.3) * weight)
    for untouched in (model[0].bias, model[1].weight, model[1].bias, model[2].bias):
        assert torch.equal(untouched.grad, torch.ones_like(untouched))
    assert model[2].weight.grad is None


def test_weight_decay_is_decoupled() -> None:
    model = nn.Linear(3, 2)
    weight, bias = model.weight.detach().clone(), model.bias.detach().clone()
    make({"name": "weight-decay", "strength": 0.5}).after_step(model.named_parameters(), 0.1)
    torch.testing.assert_close(model.weight.detach(), weight - 0.1 * 0.5 * weight)
    assert torch.equal(model.bias.detach(), bias)


def test_weight_decay_lowers_the_test_error_of_200_inputs_and_20_rows() -> None:
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(120, 200, dtype=torch.float64, generator=generator)
    noise = 0.01 * torch.randn(120, 1, dtype=torch.float64, generator=generator)
    targets = 0.05 + 0.01 * features.sum(1, keepdim=True) + noise
    start = torch.randn(1, 200, dtype=torch.float64, generator=generator)

    def errors(*sections: dict[str, Any]) -> tuple[float, float]:
        model = linear(200)
        with torch.no_grad():
            model.weight.copy_(start)
        train = fit(model, features[:20], targets[:20], make(*sections), lr=0.01, steps=1000)
        return train, float(F.mse_loss(model(features[20:]), targets[20:]).detach())

    train, test = errors()
    _, decayed = errors({"name": "weight-decay", "strength": 3.0})
    assert train < 1e-3 < test
    assert decayed < 0.1 * test


def network(p: float = 0.5) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(20, 64),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(64, 64),
        nn.ReLU(),
        nn.Dropout(p),
        nn.Linear(64, 2),
    )


def classify(model: nn.Module, features: Tensor, labels: Tensor, steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(model(features), labels).backward()
        optimizer.step()
    model.eval()


@pytest.fixture(scope="module")
def classes() -> tuple[Tensor, Tensor]:
    """600 rows of 20 inputs; the class is the sign of a noisy sum of five of them."""
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(600, 20, generator=generator)
    score = features[:, :5].sum(1) + 1.5 * torch.randn(600, generator=generator)
    return features, (score > 0).long()


def test_dropout_sets_every_layer() -> None:
    model = nn.ModuleDict(
        {
            "a": nn.Dropout(0.1),
            "b": nn.Sequential(nn.Dropout2d(0.2), nn.AlphaDropout(0.3)),
            "c": nn.LSTM(4, 4, num_layers=2),
            "d": nn.MultiheadAttention(4, 2),
            "e": nn.Linear(2, 2),
        }
    )
    make({"name": "dropout", "p": 0.7}).prepare(model)
    layers: list[Any] = [model["a"], *model["b"]]  # type: ignore[arg-type]
    assert [layer.p for layer in layers] == [0.7] * 3
    assert [model["c"].dropout, model["d"].dropout] == [0.7, 0.7]


@pytest.mark.parametrize("name", ["dropout", "mc-dropout"])
def test_dropout_needs_a_layer(name: str) -> None:
    section = {"name": name, "p": 0.5} if name == "dropout" else {"name": name}
    # torch's recurrent nets drop between layers: one of a single layer has nothing to drop.
    for model in (nn.Linear(2, 2), nn.Sequential(nn.LSTM(2, 2))):
        with pytest.raises(UsageError, match=f"{name} needs a dropout layer, and {type(model).__name__}"):
            make(section).prepare(model)
    make({"name": "l1", "strength": 1.0}).prepare(nn.Linear(2, 2))


def test_mc_dropout_alone_keeps_the_models_own_rates() -> None:
    model = network(p=0.3)
    make({"name": "mc-dropout"}).prepare(model)
    assert model[2].p == 0.3


def test_dropout_keeps_the_expected_activation_and_is_off_at_eval() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Dropout(0.1), nn.Linear(10, 3, bias=False))
    make({"name": "dropout", "p": 0.5}).prepare(model)
    row = torch.rand(1, 10).expand(20_000, 10)
    with torch.no_grad():
        dropped = model.train()(row)
        whole = model.eval()(row)
    assert torch.equal(whole, model[1](row))
    assert float(dropped.std(0).min()) > 0.1
    torch.testing.assert_close(dropped.mean(0), whole[0], rtol=0.0, atol=0.03)


def test_dropout_narrows_the_gap(classes: tuple[Tensor, Tensor]) -> None:
    features, labels = classes

    def gap(p: float, seed: int) -> float:
        torch.manual_seed(seed)
        model = network()
        make({"name": "dropout", "p": p}).prepare(model)
        classify(model, features[:100], labels[:100], 100)
        with torch.no_grad():
            train = F.cross_entropy(model(features[:100]), labels[:100])
            valid = F.cross_entropy(model(features[100:]), labels[100:])
        return float(valid - train)

    for seed in range(3):
        assert 0 < gap(0.5, seed) < 0.85 * gap(0.0, seed)


def test_mc_dropout_averages_to_better_odds(classes: tuple[Tensor, Tensor]) -> None:
    features, labels = classes
    torch.manual_seed(0)
    regularizers, model = make({"name": "mc-dropout", "samples": 30}), network(p=0.5)
    classify(model, features[:100], labels[:100], 100)

    def log_loss(logarithms: Tensor) -> float:
        return float(F.nll_loss(logarithms, labels[100:]))

    with torch.no_grad():
        deterministic = log_loss(model(features[100:]).log_softmax(-1))
        with regularizers.stochastic(model):
            passes = [model(features[100:]).log_softmax(-1) for _ in range(regularizers.mc_samples)]
    averaged = log_loss(torch.stack(passes).exp().mean(0).log())
    assert averaged < min(log_loss(one) for one in passes)
    assert averaged < deterministic


def test_mc_dropout_doubts_what_it_has_not_seen() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 64), nn.ReLU())
    model.extend([nn.Dropout(0.2), nn.Linear(64, 1)])
    seen, unseen = torch.linspace(-1, 1, 64)[:, None], torch.linspace(2, 3, 64)[:, None]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(200):
        optimizer.zero_grad()
        F.mse_loss(model(seen), torch.sin(3 * seen)).backward()
        optimizer.step()
    with torch.no_grad(), make({"name": "mc-dropout"}).stochastic(model):
        known, unknown = (
            torch.stack([model(rows) for _ in range(50)]).var(0).mean() for rows in (seen, unseen)
        )
    assert float(unknown) > 2 * float(known)


def test_stochastic_turns_on_dropout_alone_and_restores_every_mode() -> None:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.GRU(4, 4, num_layers=2), nn.Linear(4, 4))
    model.eval()
    model[3].train()
    modes = [module.training for module in model.modules()]

    def fail_inside() -> None:
        with make().stochastic(model):
            assert [module.training for module in model.modules()] == [False, False, True, True, False]
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_inside()
    assert [module.training for module in model.modules()] == modes


def test_stochastic_reaches_dropout_inside_a_transformer_layer() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True).eval()
    rows = torch.randn(2, 3, 8)
    with torch.no_grad(), make().stochastic(model):
        assert not torch.equal(model(rows), model(rows))
    with torch.no_grad():
        assert torch.equal(model(rows), model(rows))


def test_max_norm_bounds_each_unit_after_each_step() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(3, 4))
    regularizers = make({"name": "max-norm", "limit": 0.5})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    for _ in range(10):
        optimizer.zero_grad()
        (model(torch.randn(8, 2, 3, 3)) ** 2).sum(1).sub(3).abs().mean().backward()
        optimizer.step()
        regularizers.after_step(model.named_parameters(), 0.5)
        for layer in (model[0], model[2]):
            norms = layer.weight.detach().flatten(1).norm(dim=1)
            assert float(norms.max()) <= 0.5 * (1 + 1e-6)


def test_max_norm_leaves_small_weights_and_keeps_directions() -> None:
    model = nn.Linear(3, 3)
    start = torch.tensor([[3.0, 0.0, 4.0], [0.1, 0.2, 0.3], [0.0, 0.0, 0.0]])
    with torch.no_grad():
        model.weight.copy_(start)
        model.bias.fill_(9.0)
    make({"name": "max-norm", "limit": 1.0}).after_step(model.named_parameters(), 0.1)
    torch.testing.assert_close(model.weight[0].detach(), torch.tensor([0.6, 0.0, 0.8]))
    assert torch.equal(model.weight[1:].detach(), start[1:])
    assert torch.equal(model.bias.detach(), torch.full((3,), 9.0))


def test_options_are_found() -> None:
    empty = make()
    assert (empty.clip_norm, empty.augmentation, empty.mc_samples) == (None, None, 0)
    full = make(
        {"name": "gradient-clipping", "norm": 2.5},
        {"name": "data-augmentation", "shift": 3},
        {"name": "mc-dropout", "samples": 7},
    )
    assert (full.clip_norm, full.mc_samples) == (2.5, 7)
    assert full.augmentation is not None
    assert full.augmentation.shift == 3


@pytest.fixture
def one_process() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_sharded_parameters_give_the_same() -> None:
    mesh = init_device_mesh("cpu", (1,))
    regularizers = make(
        {"name": "elastic-net", "strength": 0.1},
        {"name": "weight-decay", "strength": 0.2},
        {"name": "max-norm", "limit": 1.0},
    )
    torch.manual_seed(0)
    plain = nn.Parameter(torch.randn(4, 3))
    sharded = nn.Parameter(distribute_tensor(plain.detach().clone(), mesh, [Shard(0)]))
    totals = []
    for weight in (plain, sharded):
        (weight**2).sum().backward()
        regularizers.penalize([("w", weight)])
        totals.append(clip([weight], 1.0, 0.3))
        torch.optim.SGD([weight], lr=0.1).step()
        regularizers.after_step([("w", weight)], 0.1)
    assert not isinstance(totals[1], DTensor)
    torch.testing.assert_close(totals[1], totals[0])
    torch.testing.assert_close(sharded.detach().full_tensor(), plain.detach())  # type: ignore[attr-defined]
