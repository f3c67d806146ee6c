"""Blocks that models are put together of: residual units, separable and grouped convolutions, recalibration,
dense blocks, holes, transposes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from built import build, first_gradient, layers, named
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.own.operators import with_operators
from dlsys.zoo.vision.resnet.model import Block

pytestmark = pytest.mark.usefixtures("seeded")


def test_a_residual_units_gradient_reaches_the_first_of_fifty_layers() -> None:
    """ResNet's, without norms, which keep a plain net's gradient alive for a reason of their own."""

    def unit(residual: bool) -> Callable[[], list[nn.Module]]:
        def make() -> list[nn.Module]:
            block = Block(8, 8, 1, "group", residual)
            block.norm1, block.norm2 = nn.Identity(), nn.Identity()
            return [block]

        return make

    image = torch.rand(2, 8, 8, 8)
    residual, plain = (first_gradient(unit(kind), image, 25) for kind in (True, False))
    assert residual > 100 * plain
    assert residual > 1e-3, "both have died"


def test_a_depthwise_separable_convolution_is_one_of_rank_one() -> None:
    """MobileNet's block: k² C + C D weights, and any filters that are a product of both."""
    block = named(
        build("vision-library", {"preset": "mobilenet-v1-small"}, 3, 32, 32), "DepthwiseSeparableConv"
    )[0]
    spatial, pointwise = block.conv_dw, block.conv_pw
    size, inputs, outputs = spatial.kernel_size[0], spatial.in_channels, pointwise.out_channels
    weights = spatial.weight.numel() + pointwise.weight.numel()
    assert weights == size**2 * inputs + inputs * outputs
    full = nn.Conv2d(inputs, outputs, size, stride=spatial.stride, padding=spatial.padding, bias=False)
    assert full.weight.numel() == size**2 * inputs * outputs
    with torch.no_grad():
        full.weight.copy_(pointwise.weight * spatial.weight.transpose(0, 1))
    image = torch.randn(2, inputs, 9, 9)
    torch.testing.assert_close(pointwise(spatial(image)), full(image), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "groups"),
    [("alexnet", {"width": 0.1}, 2), ("vision-library", {"preset": "resnext-small"}, 8)],
)
def test_a_convolution_in_groups_is_one_of_a_block_diagonal(
    name: str, options: dict[str, Any], groups: int
) -> None:
    layer = next(m for m in layers(build(name, options, 3, 64, 64), nn.Conv2d) if m.groups == groups)
    ins, outs = layer.in_channels // groups, layer.out_channels // groups
    full = torch.zeros(layer.out_channels, layer.in_channels, *layer.kernel_size)
    for g in range(groups):
        full[g * outs : (g + 1) * outs, g * ins : (g + 1) * ins] = layer.weight[g * outs : (g + 1) * outs]
    image = torch.randn(2, layer.in_channels, 9, 9)
    expected = F.conv2d(image, full, layer.bias, layer.stride, layer.padding)
    torch.testing.assert_close(layer(image), expected, atol=1e-5, rtol=1e-4)


def test_squeeze_and_excitation_weighs_channels_and_picks_a_planted_one() -> None:
    """SE-ResNet's block; what is learned lies in one channel, and the others only disturb."""
    block = named(build("vision-library", {"preset": "senet-small"}, 1, 32, 32), "SEModule")[0]
    channels, planted = block.fc1.in_channels, 5

    def weights(maps: Tensor) -> Tensor:
        return (block(maps) / maps)[:, :, 0, 0]

    maps = torch.rand(32, channels, 3, 3) + 0.5
    before = weights(maps)
    assert ((before > 0) & (before < 1)).all()
    torch.testing.assert_close(block(maps), maps * before[:, :, None, None])
    optimizer = torch.optim.Adam(block.parameters(), lr=0.05)
    for _ in range(60):
        maps = torch.randn(32, channels, 1, 1)
        # The sum of all channels is to be the planted one.
        loss = (block(maps).sum(1) - maps[:, planted]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    learned = weights(maps).mean(0)
    assert learned[planted] > 0.9
    assert learned[torch.arange(channels) != planted].max() < 0.1


@pytest.mark.parametrize(
    ("preset", "stem", "growth", "depths", "image"),
    [
        ("densenet-121", 64, 32, (6, 12, 24, 16), (3, 224, 224)),
        ("densenet-small", 24, 12, (2, 4, 4), (1, 32, 32)),
    ],
)
def test_dense_blocks_add_their_growth_and_transitions_halve(
    preset: str, stem: int, growth: int, depths: tuple[int, ...], image: tuple[int, ...]
) -> None:
    with torch.device("meta"):
        model = build("vision-library", {"preset": preset}, *image)
    maps = stem
    transitions = [m for m in model.modules() if type(m).__name__ == "DenseTransition"]
    for number, (block, depth) in enumerate(zip(named(model, "DenseBlock"), depths, strict=True)):
        units = [m for m in block.modules() if type(m).__name__ == "DenseLayer"]
        # Each sees all that came before.
        assert [unit.conv1.in_channels for unit in units] == [maps + growth * n for n in range(depth)]
        assert {unit.conv2.out_channels for unit in units} == {growth}
        maps += growth * depth
        if number < len(depths) - 1:
            convolution = transitions[number].conv
            assert (convolution.in_channels, convolution.out_channels) == (maps, maps // 2)
            maps //= 2
    assert layers(model, nn.Linear)[-1].in_features == maps


def test_a_convolution_with_holes_is_one_of_a_wider_kernel() -> None:
    """Those of a ResNet whose last stages keep their sides: timm's `output_stride`."""
    options = {"architecture": "timm/resnet18", "arguments": {"output_stride": 8, "channels": [8, 8, 8, 8]}}
    model = build("vision-library", options, 1, 32, 32)
    holes = [layer for layer in layers(model, nn.Conv2d) if layer.dilation != (1, 1)]
    assert {layer.dilation for layer in holes} == {(2, 2), (4, 4)}
    for layer in holes[:1] + holes[-1:]:
        rate, size = layer.dilation[0], layer.kernel_size[0]
        wide = rate * (size - 1) + 1
        kernel = torch.zeros(*layer.weight.shape[:2], wide, wide)
        kernel[..., ::rate, ::rate] = layer.weight
        image = torch.randn(2, layer.in_channels, 11, 12)
        expected = F.conv2d(image, kernel, layer.bias, layer.stride, layer.padding)
        torch.testing.assert_close(layer(image), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("size", "stride", "padding"), [(3, 1, 1), (4, 2, 1), (5, 3, 0)])
def test_a_transposed_convolution_is_the_adjoint_of_a_convolution(
    size: int, stride: int, padding: int
) -> None:
    """⟨conv(x), y⟩ = ⟨x, transposed(y)⟩ of the same weights, and the size that comes back."""
    down = nn.Conv2d(3, 4, size, stride, padding, bias=False).double()
    up = nn.ConvTranspose2d(4, 3, size, stride, padding, bias=False).double()
    up.weight = down.weight
    x = torch.randn(2, 3, 11, 14, dtype=torch.float64)
    y = torch.randn_like(down(x))
    back = up(y, output_size=x.shape[2:])
    torch.testing.assert_close((down(x) * y).sum(), (x * back).sum())


def test_squeeze_and_excitation_turns_a_useless_channel_down() -> None:
    """Seven channels tell the label, an eighth is loud noise; all are added up: the gates alone decide."""

    def block() -> nn.Module:
        from timm.layers import SEModule

        found: nn.Module = SEModule(8, rd_channels=4)
        return found

    gates = with_operators("timm", block)
    label = torch.arange(256) % 2
    image = 0.5 * torch.randn(256, 8, 4, 4) + (2.0 * label - 1)[:, None, None, None]
    image[:, 7] = 6 * torch.randn(256)[:, None, None]
    optimizer = torch.optim.Adam(gates.parameters(), lr=0.02)
    for _ in range(150):
        said = gates(image).sum(1).mean((1, 2))
        loss = nn.functional.binary_cross_entropy_with_logits(said, label.float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        opened = (gates(image) / image).mean((0, 2, 3))
    assert opened[7] < 0.5 * opened[:7].min()
