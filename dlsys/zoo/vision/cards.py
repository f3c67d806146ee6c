"""Cards of the vision models."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from dlsys.spec.card import DATA_PARALLEL, Card, Cut, Shape
from dlsys.spec.section import Count, Fraction, Positive, Section
from dlsys.zoo.cost import Cost, activation, convolution, dense


class LeNet5Options(Section):
    """The size of LeNet-5 and its dropout."""

    width: Positive = 1.0
    """Scales the maps (6, 16) and the units (120, 84)."""
    dropout: Fraction = 0.0
    """The probability of switching a unit off before each of the last two layers."""


def lenet_widths(options: LeNet5Options) -> tuple[int, int, int, int]:
    """Maps of the two convolutions and units of the two hidden dense layers."""
    first, second, third, fourth = (max(1, round(options.width * n)) for n in (6, 16, 120, 84))
    return first, second, third, fourth


def lenet_padding(size: tuple[int, ...], paper: int) -> tuple[int, int]:
    """Padding of a 5 × 5 convolution: 2 where the input is smaller than the paper's.

    The paper's convolutions see 32 × 32 and 14 × 14 and lose 4 pixels a side; smaller images
    cannot afford that. So 28 × 28 becomes the well-known MNIST version, and 8 × 8 works.
    """
    return 2 * (size[0] < paper), 2 * (size[1] < paper)


def lenet_size(size: tuple[int, ...], paper: int) -> tuple[int, int]:
    """Height and width behind a 5 × 5 convolution; pooling then halves them, rounding down."""
    vertical, horizontal = lenet_padding(size, paper)
    return size[0] - 4 + 2 * vertical, size[1] - 4 + 2 * horizontal


def _lenet_5(options: LeNet5Options, shape: Shape) -> Cost:
    channels, *size = shape.row["image"]
    maps1, maps2, units1, units2 = lenet_widths(options)
    size1 = lenet_size(tuple(size), 32)
    size2 = lenet_size((size1[0] // 2, size1[1] // 2), 14)
    pixels2 = (size2[0] // 2) * (size2[1] // 2)
    return (
        convolution(channels, maps1, 5, size1)
        + activation(maps1 * size1[0] * size1[1])
        + convolution(maps1, maps2, 5, size2)
        + activation(maps2 * size2[0] * size2[1])
        + dense(maps2 * pixels2, units1)
        + activation(units1)
        + dense(units1, units2)
        + activation(units2)
        + dense(units2, shape.classes)
    )


def _lenet_plan(options: LeNet5Options) -> dict[str, Cut]:
    units = lenet_widths(options)[2]
    return {"dense1.0": Cut("column", units), "dense2.0": Cut("row", units)}


LENET_5 = Card(
    name="lenet-5",
    title="LeNet-5: two convolutions, three dense layers",
    paper="LeCun et al. 1998, http://yann.lecun.com/exdb/publis/pdf/lecun-98.pdf",
    workload="dlsys.zoo.vision.lenet:LeNet5",
    options=LeNet5Options,
    sources=("digits", "idx", "image-folder"),
    metrics={"accuracy": "max"},
    has_dropout=True,
    blocks=("conv1", "conv2", "dense1", "dense2", "output"),
    strategies=(*DATA_PARALLEL, "pipeline", "tensor"),
    tensor_plan=_lenet_plan,
    parameters=lambda o, s: _lenet_5(o, s).parameters,
    flops=lambda o, s: _lenet_5(o, s).flops,
    activation_bytes=lambda o, s: _lenet_5(o, s).activation_bytes,
)


class ResNetOptions(Section):
    """The size of a residual net and its normalization."""

    depth: Count = 8
    """Layers with weights, 6n + 2: 8, 14, 20, 32, …"""
    width: Count = 16
    """Maps of the first stage; each of the next two has twice as many."""
    norm: Literal["batch", "group"] = "batch"
    """`group` computes the same under any number of workers; `batch` does not."""

    @field_validator("depth")
    @classmethod
    def _six_n_plus_two(cls, depth: int) -> int:
        if depth < 8 or depth % 6 != 2:
            near = max(8, 6 * round((depth - 2) / 6) + 2)
            raise ValueError(f"must be 6n + 2 with n ≥ 1, got {depth}: try {near}")
        return depth


def _resnet(options: ResNetOptions, shape: Shape) -> Cost:
    channels, height, width = shape.row["image"]

    def layer(inputs: int, outputs: int, size: tuple[int, int]) -> Cost:
        """Convolution, norm and ReLU; behind a block's second norm, the ReLU follows the sum."""
        norm = Cost(parameters=2 * outputs, outputs=outputs * size[0] * size[1])
        relu = activation(outputs * size[0] * size[1])
        return convolution(inputs, outputs, 3, size, bias=False) + norm + relu

    size = (height, width)
    total = layer(channels, options.width, size)
    inputs = options.width
    for stage in range(3):
        if stage:
            size = (-(-size[0] // 2), -(-size[1] // 2))
        maps = options.width * 2**stage
        for _ in range((options.depth - 2) // 6):
            total += layer(inputs, maps, size) + layer(maps, maps, size)
            inputs = maps
    return total + dense(inputs, shape.classes)


def _resnet_inexact(options: ResNetOptions) -> str:
    batch = "batch norm sees only its own worker's rows; with model.norm: group it is exact"
    return batch if options.norm == "batch" else ""


RESNET = Card(
    name="resnet",
    title="ResNet for small images",
    paper="He et al. 2015, arXiv:1512.03385, section 4.2",
    workload="dlsys.zoo.vision.resnet:ResNet",
    options=ResNetOptions,
    sources=("digits", "idx", "image-folder"),
    metrics={"accuracy": "max"},
    inexact=_resnet_inexact,
    blocks=("stem", "stage1", "stage2", "stage3", "head"),
    strategies=(*DATA_PARALLEL, "pipeline"),
    parameters=lambda o, s: _resnet(o, s).parameters,
    flops=lambda o, s: _resnet(o, s).flops,
    activation_bytes=lambda o, s: _resnet(o, s).activation_bytes,
)
