"""Clipping of gradients: by norm, by value, and what it is for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlsys.train.regularize import clip


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
