"""Layers that models of the zoo are made of, each by what it is told to compute.

Where a workload has the layer, it is taken from there. Local response normalization is with AlexNet
(`test_classic_nets.py`), layers and modules of a user's own are in `test_load_workload.py`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator

import pytest
import torch
from built import build, first_gradient, layers, named
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.spec.rows import Shape
from dlsys.zoo.layers.he import he_normal
from dlsys.zoo.load import load_workload

pytestmark = pytest.mark.usefixtures("seeded")


def windows(
    image: Tensor, size: int, stride: int, padding: int, fill: float
) -> Iterator[tuple[int, int, Tensor]]:
    """Each place (row, column) of an output, and what of a map (height, width) lies under its window."""
    padded = torch.full((image.shape[0] + 2 * padding, image.shape[1] + 2 * padding), fill, dtype=image.dtype)
    padded[padding : padding + image.shape[0], padding : padding + image.shape[1]] = image
    for row in range((padded.shape[0] - size) // stride + 1):
        for column in range((padded.shape[1] - size) // stride + 1):
            top, left = row * stride, column * stride
            yield row, column, padded[top : top + size, left : left + size]


def test_a_convolution_is_a_cross_correlation_summed_over_maps() -> None:
    """LeNet-5's second, by loops: nothing is flipped, each output adds up all inputs."""
    layer = layers(build("lenet-5", {}, 1, 28, 28), nn.Conv2d)[1]
    image = torch.randn(1, 6, 7, 6)
    outputs = layer(image)[0]
    size, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
    assert layer.bias is not None
    for filters, bias, output in zip(layer.weight, layer.bias, outputs, strict=True):
        expected = bias.repeat(output.shape)
        for maps, kernel in zip(image[0], filters, strict=True):
            for row, column, window in windows(maps, size, stride, padding, 0.0):
                expected[row, column] = expected[row, column] + (window * kernel).sum()
        torch.testing.assert_close(output, expected)


def test_a_convolution_is_local_and_moves_with_its_image() -> None:
    layer = layers(build("resnet", {"norm": "group"}, 1, 12, 12), nn.Conv2d)[1]
    image = torch.zeros(1, 16, 12, 12)
    image[:, :, 5, 5] = 1.0
    seen = layer(image)
    assert {tuple(place) for place in seen.abs().sum(1)[0].nonzero().tolist()} == {
        *itertools.product((4, 5, 6), (4, 5, 6))
    }
    moved = layer(image.roll((2, -3), (2, 3)))
    torch.testing.assert_close(moved, seen.roll((2, -3), (2, 3)))


def test_an_edge_detector_is_learned_from_what_it_gave() -> None:
    """A bar on a ground, and where it begins (1) and ends (-1)."""
    image = torch.ones(1, 1, 6, 8)
    image[..., 2:6] = 0.0
    edges = F.conv2d(image, torch.tensor([[[[1.0, -1.0]]]]))
    layer = nn.Conv2d(1, 1, (1, 2), bias=False)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.03)
    for _ in range(40):
        optimizer.zero_grad()
        (layer(image) - edges).square().sum().backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight.flatten(), torch.tensor([1.0, -1.0]), atol=0.02, rtol=0)


def test_sizes_of_outputs_follow_the_formula() -> None:
    """⌊(n + 2p − d(k − 1) − 1) / s⌋ + 1, over all small cases, of convolutions and of pooling."""
    seen = 0
    for n, k, s, p in itertools.product((5, 8, 13), (1, 2, 3, 5), (1, 2, 3), (0, 1, 2)):
        image = torch.zeros(1, 1, n, n + 1)
        for d in (1, 2):
            if n + 2 * p < d * (k - 1) + 1:
                continue
            expected = tuple((side + 2 * p - d * (k - 1) - 1) // s + 1 for side in (n, n + 1))
            assert nn.Conv2d(1, 1, k, s, p, d)(image).shape[2:] == expected
            if p <= k // 2:
                assert nn.MaxPool2d(k, s, p, d)(image).shape[2:] == expected
            seen += 1
    assert seen >= 100


def test_a_convolution_of_one_pixel_is_a_dense_layer_for_each() -> None:
    """Network in Network's second."""
    layer = layers(build("nin", {"width": 0.1}, 3, 16, 16), nn.Conv2d)[1]
    assert layer.kernel_size == (1, 1)
    image = torch.randn(2, layer.in_channels, 5, 4)
    pixels = F.linear(image.permute(0, 2, 3, 1), layer.weight.flatten(1), layer.bias)
    torch.testing.assert_close(layer(image), pixels.permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_pooling_is_the_largest_or_the_mean_of_each_window(size: int, stride: int, padding: int) -> None:
    image = torch.randn(6, 7)
    largest = nn.MaxPool2d(size, stride, padding)(image[None, None])[0, 0]
    mean = nn.AvgPool2d(size, stride, padding)(image[None, None])[0, 0]
    for row, column, window in windows(image, size, stride, padding, -math.inf):
        assert largest[row, column] == window.max()
    for row, column, window in windows(image, size, stride, padding, 0.0):
        torch.testing.assert_close(mean[row, column], window.mean())


@pytest.mark.parametrize("name", ["nin", "resnet"])
def test_behind_a_global_average_any_image_gives_the_same_shape(name: str) -> None:
    model = build(name, {"width": {"nin": 0.05, "resnet": 4}[name]}, 3, 16, 16).eval()
    (pool,) = layers(model, nn.AdaptiveAvgPool2d)
    pools: list[tuple[Tensor, Tensor]] = []
    pool.register_forward_hook(lambda _, inputs, output: pools.append((inputs[0], output)))
    for sides in ((16, 16), (24, 40), (9, 33)):
        assert model(torch.rand(2, 3, *sides)).shape == (2, 10)
    assert len({maps.shape[2:] for maps, _ in pools}) == 3
    for maps, means in pools:
        torch.testing.assert_close(means[:, :, 0, 0], maps.mean((2, 3)))


def test_gradients_of_activations_are_their_curves() -> None:
    x = torch.linspace(-6, 6, 49, requires_grad=True)  # 0 is among them
    sigmoid, tanh = 1 / (1 + (-x.detach()).exp()), x.detach().tanh()
    for activation, slope in (
        (nn.ReLU(), (x > 0).float()),
        (nn.Sigmoid(), sigmoid * (1 - sigmoid)),
        (nn.Tanh(), 1 - tanh**2),
        (nn.LeakyReLU(0.2), torch.where(x > 0, 1.0, 0.2)),
    ):
        (gradient,) = torch.autograd.grad(activation(x).sum(), x)
        torch.testing.assert_close(gradient, slope, atol=1e-6, rtol=1e-5)


def test_a_gradient_dies_in_twenty_sigmoids_and_lives_in_twenty_relus() -> None:
    def stack(activation: type[nn.Module]) -> Callable[[], list[nn.Module]]:
        def make() -> list[nn.Module]:
            linear = nn.Linear(64, 64)
            nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
            return [linear, activation()]

        return make

    rows = torch.randn(32, 64)
    shallow = first_gradient(stack(nn.Sigmoid), rows, 1)
    assert first_gradient(stack(nn.Sigmoid), rows, 20) < 1e-5 * shallow
    assert first_gradient(stack(nn.ReLU), rows, 20) > 0.1 * first_gradient(stack(nn.ReLU), rows, 1)


def test_leaky_relus_leave_no_unit_dead() -> None:
    """In the GAN's discriminator, and in one of ReLUs: units that no row gives a gradient any more."""
    dead = {}
    for leaky in (True, False):
        torch.manual_seed(1)
        ring = Shape(row={"point": (2,)}, planted={"modes": 8, "radius": 2.0, "sigma": 0.1})
        model = load_workload("gan", {"hidden": 64}, ring).build()
        critic = model.get_submodule("discriminator")
        parts = [
            nn.ReLU() if isinstance(part, nn.LeakyReLU) and not leaky else part for part in critic.children()
        ]
        assert any(isinstance(part, nn.LeakyReLU) for part in critic.children())
        critic = nn.Sequential(*parts)
        optimizer = torch.optim.SGD(critic.parameters(), lr=2.0)
        real, fake = torch.randn(64, 2) + 2, torch.randn(64, 2) - 2
        for _ in range(60):
            loss = F.softplus(-critic(real)).mean() + F.softplus(critic(fake)).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        # A unit's input has a gradient only where what is behind lets one through.
        x = torch.cat((real, fake))
        counted = []
        for part in critic:
            if isinstance(part, nn.ReLU | nn.LeakyReLU):
                x = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(part(x).sum(), x)
                counted.append((slope == 0).all(0))
            x = part(x)
        dead[leaky] = torch.cat(counted).float().mean().item()
    assert dead[True] == 0
    assert dead[False] > 0.05


def test_batch_norm_normalizes_and_remembers_what_it_saw() -> None:
    """VGG's: by the batch's mean and variance; of those, running means with the unbiased variance."""
    (norm, *_) = layers(build("vgg", {"depth": 11, "width": 0.04, "norm": "batch"}, 1, 8, 8), nn.BatchNorm2d)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    nn.init.uniform_(norm.bias)
    mean, variance = torch.zeros(norm.num_features), torch.ones(norm.num_features)
    for _ in range(3):
        maps = torch.randn(8, norm.num_features, 4, 5) * 3 + 1
        seen, spread = maps.mean((0, 2, 3)), maps.var((0, 2, 3), unbiased=False)
        mean = 0.9 * mean + 0.1 * seen
        variance = 0.9 * variance + 0.1 * maps.var((0, 2, 3))
        columns = [value[:, None, None] for value in (seen, spread, norm.weight, norm.bias)]
        expected = (maps - columns[0]) / (columns[1] + norm.eps).sqrt() * columns[2] + columns[3]
        torch.testing.assert_close(norm(maps), expected)
    torch.testing.assert_close(norm.running_mean, mean)
    torch.testing.assert_close(norm.running_var, variance)
    maps = torch.randn(1, norm.num_features, 2, 2)
    columns = [value[:, None, None] for value in (mean, variance, norm.weight, norm.bias)]
    remembered = (maps - columns[0]) / (columns[1] + norm.eps).sqrt() * columns[2] + columns[3]
    torch.testing.assert_close(norm.eval()(maps), remembered)


def test_batch_norm_trains_at_ten_times_the_rate_at_which_the_plain_net_fails() -> None:
    """Eight layers of ReLUs on digits, whose loss is 2.3 where nothing is learned."""
    found = load_digits()
    images = torch.tensor(found.images[:256], dtype=torch.float32).flatten(1) / 16
    labels = torch.tensor(found.target[:256])

    def loss_after(norm: bool, rate: float) -> float:
        torch.manual_seed(0)
        parts: list[nn.Module] = []
        for _ in range(8):
            parts += [nn.Linear(64, 64), *([nn.BatchNorm1d(64)] if norm else []), nn.ReLU()]
        model = he_normal(nn.Sequential(*parts, nn.Linear(64, 10)))
        optimizer = torch.optim.SGD(model.parameters(), lr=rate)
        for _ in range(40):
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return loss.item()

    assert loss_after(norm=False, rate=0.03) < 1.9, "the plain net learns at a small rate"
    assert not loss_after(norm=False, rate=0.3) < 1.9
    assert loss_after(norm=True, rate=0.3) < 0.1


def test_layer_norm_knows_no_batch_and_batch_norm_does() -> None:
    """A row's logits, alone or among others, of a vision transformer and of a network with batch norm."""
    alike = {}
    for preset in ("vit-small", "resnet-50-small"):
        model = build("vision-library", {"preset": preset}, 1, 8, 8).train()
        image = torch.rand(4, 1, 8, 8)
        alike[preset] = torch.allclose(model(image)[:2], model(image[:2]), atol=1e-4)
    assert alike == {"vit-small": True, "resnet-50-small": False}
    (norm, *_) = named(build("vision-library", {"preset": "vit-small"}, 1, 8, 8), "LayerNorm")
    rows = torch.randn(3, 5, 64) * 4 + 2
    expected = (rows - rows.mean(2, keepdim=True)) / (
        rows.var(2, unbiased=False, keepdim=True) + norm.eps
    ).sqrt()
    torch.testing.assert_close(norm(rows), expected)
