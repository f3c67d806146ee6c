"""Clipping of gradients: by norm, by value, and what it is for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from harness import QUICK, in_workers, job, train
from torch import Tensor, nn

from dlsys.errors import NonFiniteError
from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.train.regularize import clip
from dlsys.train.world import World


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    # Matrices this small only lose by being shared out.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def gradients(*values: list[float]) -> list[nn.Parameter]:
    parameters = [nn.Parameter(torch.zeros(len(value))) for value in values]
    for parameter, value in zip(parameters, values, strict=True):
        parameter.grad = torch.tensor(value)
    return [*parameters, nn.Parameter(torch.zeros(2))]  # the last one has no gradient


def joined(parameters: list[nn.Parameter]) -> Tensor:
    return torch.cat([parameter.grad for parameter in parameters if parameter.grad is not None])


def test_clip_bounds_the_norm_and_keeps_the_direction() -> None:
    parameters = gradients([3.0, -4.0], [12.0])
    total = clip(parameters, 2.0, None)
    assert float(total) == pytest.approx(13.0)
    assert float(joined(parameters).norm()) <= 2.0
    torch.testing.assert_close(joined(parameters), torch.tensor([3.0, -4.0, 12.0]) * 2 / 13)


def test_clip_leaves_a_small_gradient() -> None:
    parameters = gradients([0.3, -0.4])
    assert float(clip(parameters, 2.0, 1.0)) == pytest.approx(0.5)
    assert torch.equal(joined(parameters), torch.tensor([0.3, -0.4]))


def test_clip_by_value_comes_after_the_norm() -> None:
    parameters = gradients([3.0, -4.0], [12.0])
    assert float(clip(parameters, None, 3.5)) == pytest.approx(13.0)
    assert torch.equal(joined(parameters), torch.tensor([3.0, -3.5, 3.5]))
    parameters = gradients([3.0, -4.0], [12.0])
    assert float(clip(parameters, 6.5, 2.0)) == pytest.approx(13.0)
    torch.testing.assert_close(joined(parameters), torch.tensor([1.5, -2.0, 2.0]))


def test_clip_only_measures_when_nothing_bounds() -> None:
    parameters = gradients([3.0, -4.0])
    assert float(clip(parameters, None, None)) == pytest.approx(5.0)
    assert torch.equal(joined(parameters), torch.tensor([3.0, -4.0]))
    assert float(clip(parameters[-1:], None, None)) == 0.0
    assert not torch.isfinite(clip(gradients([float("nan"), 1.0]), 1.0, None))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_clip_leaves_a_gradient_whose_norm_is_not_finite(bad: float) -> None:
    parameters = gradients([3.0, -4.0], [bad, 1.0])
    assert not torch.isfinite(clip(parameters, 2.0, 0.5))
    expected = torch.tensor([3.0, -4.0, bad, 1.0])
    torch.testing.assert_close(joined(parameters), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("strategy", ["single", "ddp", "fsdp"])
@pytest.mark.parametrize(("clipped", "bad"), [("clip_norm: 1.0", math.nan), ("clip_value: 0.1", math.inf)])
def test_the_error_names_the_bad_gradient(strategy: str, clipped: str, bad: float, tmp_path: Path) -> None:
    """Clipping by a NaN would spoil the first one too, and clipping by value would hide an infinity."""
    workers = 1 if strategy == "single" else 2
    spec = job(
        QUICK.replace("softmax-regression", "lenet-5"),
        f"gradient={{{clipped}}}",
        f"strategy.name={strategy}",
        f"resources.workers={workers}",
    )
    if workers == 1:
        found = [poisoned(World(), spec, str(tmp_path), bad)]
    else:
        found = in_workers(workers, poisoned, spec, str(tmp_path), bad)
    for message in found:
        assert message.startswith("step 3: the gradient of dense2.0.weight is not finite")


def poisoned(world: World, spec: TrainJob, folder: str, bad: float) -> str:
    """The error of a run in which one gradient, or a worker's part of it, goes bad in step 3."""
    base: Any = STRATEGIES.load(spec.strategy.name)  # type: ignore[union-attr]

    class Poisoned(base):  # type: ignore[misc]
        def update(self, trained: Any, step: int, *arguments: Any) -> Tensor:
            if step == 3:
                gradient = dict(trained.named)["dense2.0.weight"].grad
                getattr(gradient, "to_local", lambda: gradient)()[0, 0] = bad
            return super().update(trained, step, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Poisoned)
        with pytest.raises(NonFiniteError) as caught:
            train(spec, Path(folder), world=world)
    return str(caught.value)


def test_clipping_trains_an_rnn_that_diverges_without() -> None:
    torch.manual_seed(0)
    rows = torch.rand(64, 20, 1)
    targets = rows.sum(1)

    def losses(norm: float | None, steps: int = 600) -> list[float]:
        torch.manual_seed(1)
        rnn, head = nn.RNN(1, 16, nonlinearity="relu", batch_first=True), nn.Linear(16, 1)
        with torch.no_grad():
            rnn.weight_hh_l0.copy_(1.1 * torch.eye(16))  # eigenvalues above 1: gradients explode
        parameters = [*rnn.parameters(), *head.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=0.01)
        found = []
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / steps)
            optimizer.zero_grad()
            loss = F.mse_loss(head(rnn(rows)[0][:, -1]), targets)
            loss.backward()
            clip(parameters, norm, None)
            optimizer.step()
            found.append(float(loss.detach()))
        return found

    wild, tame = losses(None), losses(0.5)
    assert not wild[-1] < 1e6 * wild[0]
    # It has begun beyond the variance, the loss of the best constant, and now uses the rows.
    assert tame[-1] < 0.7 * float(targets.var()) < tame[0]
