"""How weights begin: their variances, what many layers make of them, ties, and sizes that the data tells."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from built import build
from harness import job, train, with_workers
from torch import Tensor, nn

pytestmark = pytest.mark.usefixtures("seeded")


def deep(
    depth: int, width: int, activation: Callable[[Tensor], Tensor], draw: Callable[[Tensor], object]
) -> Tensor:
    """The standard deviation of what each of so many layers gives."""
    x = torch.randn(256, width)
    found = []
    for _ in range(depth):
        weight = torch.empty(width, width)
        draw(weight)
        x = activation(x @ weight.T)
        found.append(x.std())
    return torch.stack(found)


def test_xaviers_variance_is_two_over_inputs_and_outputs() -> None:
    """LeNet-5's, of as many weights as tell it within 2 %."""
    model = build("lenet-5", {"width": 4.0}, 1, 28, 28)
    seen = 0
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() > 40_000:
            pixels = layer.weight[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
            ways = pixels * (layer.weight.shape[0] + layer.weight.shape[1])
            assert layer.weight.var().item() == pytest.approx(2 / ways, rel=0.02)
            assert abs(layer.weight.mean().item()) < 0.01 * (2 / ways) ** 0.5
            seen += 1
    assert seen >= 2


def test_xaviers_activations_stay_alive_over_twenty_tanhs() -> None:
    """With the gain that tanh wants, each layer's are within a factor of 2 of the first one's."""
    gain = nn.init.calculate_gain("tanh")
    stds = deep(20, 256, torch.tanh, partial(nn.init.xavier_normal_, gain=gain))
    assert 0.5 < (stds / stds[0]).min() < (stds / stds[0]).max() < 2
    small = deep(20, 256, torch.tanh, partial(nn.init.normal_, std=0.01))
    assert small[-1] < 1e-6 * small[0], "weights that are too small show what it is for"


def test_gaussian_weights_have_the_mean_and_deviation_asked_for() -> None:
    """VGG's, of N(0, 2 / inputs of a unit) (He et al. 2015)."""
    model = build("vgg", {"depth": 11, "width": 0.25}, 1, 32, 32)
    seen = 0
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.weight.numel() > 40_000:
            std = (2 / layer.weight[0].numel()) ** 0.5
            assert abs(layer.weight.mean().item()) < 0.02 * std
            assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
            beyond = (layer.weight.abs() > 2 * std).float().mean().item()
            assert beyond == pytest.approx(0.0455, abs=0.005), "the tails are a Gaussian's"
            seen += 1
    assert seen >= 5


def test_fifty_layers_vanish_or_explode_but_for_one_deviation() -> None:
    right = (2 / 256) ** 0.5
    last = {
        factor: deep(50, 256, torch.relu, partial(nn.init.normal_, std=factor * right))[-1].item()
        for factor in (0.5, 1.0, 2.0)
    }
    assert last[0.5] < 1e-10
    assert 0.05 < last[1.0] < 20
    assert last[2.0] > 1e10


class Tied(nn.Module):
    """Logits of which the last layer is the first one, turned round."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 10, bias=False)
        self.inner = nn.Linear(10, 64)
        self.decode = nn.Linear(64, 10)
        self.decode.weight = self.encode.weight

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.decode(self.inner(self.encode(image.flatten(1)).tanh()).tanh())
        return logits


def test_tied_layers_are_one_tensor_and_add_their_gradients(tmp_path: Path) -> None:
    """In a model, over training, and in what is saved (`tests/train/test_checkpoint.py` has the file)."""
    model = Tied()
    assert model.encode.weight.data_ptr() == model.decode.weight.data_ptr()
    assert len(list(model.parameters())) == 4
    image = torch.randn(5, 1, 8, 8)
    model(image).square().sum().backward()
    apart = Tied()
    apart.decode.weight = nn.Parameter(model.decode.weight.detach().clone())
    apart.load_state_dict(model.state_dict())
    apart(image).square().sum().backward()
    gradients = [layer.weight.grad for layer in (apart.encode, apart.decode, model.encode)]
    assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in gradients)
    torch.testing.assert_close(gradients[0] + gradients[1], gradients[2])
    weights = train(job(OWN.format("Tied")), tmp_path).weights
    assert torch.equal(weights["encode.weight"], weights["decode.weight"])
    assert not torch.equal(weights["encode.weight"], model.encode.weight)


OWN = """
kind: train
name: test
workload: test_initialization:{}
data: {{source: digits}}
batch_size: 64
optimizer: {{name: sgd, lr: 0.1}}
stop: {{steps: 8}}
tracking: {{log_every: 1}}
"""


def sizeless() -> nn.Module:
    """A convolutional net that says nothing of what comes in."""
    return nn.Sequential(
        nn.LazyConv2d(8, 3, padding=1), nn.Tanh(), nn.MaxPool2d(2), nn.Flatten(), nn.LazyLinear(10)
    )


def test_layers_without_sizes_take_them_from_the_data_and_train_under_ddp(tmp_path: Path) -> None:
    """Two workers compute what one does, with the same first weights."""
    single = train(job(OWN.format("sizeless")), tmp_path / "single")
    ddp = with_workers(job(OWN.format("sizeless"), "resources.workers=2"), tmp_path / "ddp")
    assert {name: tuple(weight.shape) for name, weight in ddp.weights.items()} == {
        "0.weight": (8, 1, 3, 3),
        "0.bias": (8,),
        "4.weight": (10, 128),
        "4.bias": (10,),
    }
    assert ddp.losses[8] < ddp.losses[1]
    assert ddp.losses == pytest.approx(single.losses, rel=1e-5)
