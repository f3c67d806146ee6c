from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from dlsys.errors import UsageError
from dlsys.spec.rows import Shape
from dlsys.zoo.load import load_workload
from dlsys.zoo.vision.resnet.card import ResNetOptions


def image(channels: int, height: int, width: int, classes: int = 10) -> Shape:
    return Shape(row={"image": (channels, height, width), "label": ()}, classes=classes)


@pytest.mark.parametrize("side", [28, 32])
def test_lenet_is_the_known_net(side: int) -> None:
    # 61,706: the figure for LeNet-5 with all maps connected, on MNIST.
    model = load_workload("lenet-5", {}, image(1, side, side)).build()
    assert sum(parameter.numel() for parameter in model.parameters()) == 61_706


@pytest.mark.parametrize("size", [(4, 4), (5, 5), (8, 8), (13, 40), (64, 64)])
def test_lenet_takes_any_image(size: tuple[int, int]) -> None:
    model = load_workload("lenet-5", {}, image(1, *size)).build()
    assert model(torch.rand(2, 1, *size)).shape == (2, 10)


def test_lenet_dropout_is_set() -> None:
    model = load_workload("lenet-5", {"dropout": 0.25}, image(1, 8, 8)).build()
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.25, 0.25]


def test_resnet_20_has_the_papers_size() -> None:
    # He et al. 2015, table 6: 0.27 million parameters.
    model = load_workload("resnet", {"depth": 20}, image(3, 32, 32)).build()
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6, 2) == 0.27


@pytest.mark.parametrize("depth", [2, 7, 9, 15, 18])
def test_resnet_depth_is_six_n_plus_two(depth: int) -> None:
    with pytest.raises(ValidationError, match=r"6n \+ 2 .* try \d+"):
        ResNetOptions(depth=depth)


def test_resnet_has_the_norm_asked_for() -> None:
    for norm, kind in {"batch": nn.BatchNorm2d, "group": nn.GroupNorm}.items():
        model = load_workload("resnet", {"norm": norm}, image(1, 8, 8)).build()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
        assert len(norms) == 7
        assert all(isinstance(m, kind) for m in norms)


@pytest.mark.parametrize("name", ["softmax-regression", "lenet-5", "resnet"])
def test_a_classifier_needs_classes(name: str) -> None:
    with pytest.raises(UsageError, match="at least 2 classes, this source has 0"):
        load_workload(name, {}, image(1, 8, 8, classes=0))
