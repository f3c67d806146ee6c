"""The design space: any net of it can be built and trained, and a RegNet's widths keep to a line."""

from __future__ import annotations

import random

import pytest
import torch
from pydantic import ValidationError

from dlsys.spec.rows import IMAGES_WITH_CLASSES, Shape
from dlsys.zoo.example import batch_of
from dlsys.zoo.load import load_workload
from dlsys.zoo.vision.anynet.card import CARD, AnyNetOptions, Linear

SHAPE = Shape(row={"image": (1, 8, 8), "label": ()}, classes=5)


def sampled(seed: int) -> dict[str, object]:
    """Options drawn from the space, small ones."""
    draw = random.Random(seed)
    bottleneck = draw.choice([1, 2, 4])
    groups = [draw.choice([1, 2, 4, 8]) for _ in range(4)]
    return {
        "stem": draw.choice([8, 16]),
        "depths": [draw.randint(1, 3) for _ in range(4)],
        "widths": [group * bottleneck * draw.randint(1, 4) for group in groups],
        "groups": groups,
        "bottleneck": bottleneck,
        "squeeze": draw.choice([0.0, 0.25]),
    }


@pytest.mark.parametrize("seed", range(30))
def test_any_net_of_the_space_trains_a_step(seed: int) -> None:
    torch.manual_seed(seed)
    workload = load_workload("anynet", sampled(seed), SHAPE)
    model, batch = workload.build(), batch_of(IMAGES_WITH_CLASSES, SHAPE, 8)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    outputs, _ = workload.forward(model, batch, None)
    assert outputs.shape == (8, 5)
    loss = workload.objective(outputs, batch).value
    loss.backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_net_has_the_stages_asked_for() -> None:
    options = {"depths": [1, 3, 2, 1], "widths": [8, 16, 32, 48], "groups": [4, 4, 8, 8], "bottleneck": 2.0}
    model = load_workload("anynet", options, SHAPE).build()
    x = torch.rand(2, 1, 8, 8)
    sides = []
    for name, part in model.named_children():
        x = part(x)
        sides.append((name, *x.shape[1:]))
    assert sides == [
        *[("stem", 32, 16, 16), ("stage1", 8, 8, 8), ("stage2", 16, 4, 4), ("stage3", 32, 2, 2)],
        *[("stage4", 48, 1, 1), ("head", 5)],
    ]
    assert [len(model.get_submodule(f"stage{number}")) for number in (1, 2, 3, 4)] == [1, 3, 2, 1]
    grouped = [
        m.groups for m in model.modules() if isinstance(m, torch.nn.Conv2d) and m.kernel_size == (3, 3)
    ]
    assert grouped == [1, 1, 2, 2, 2, 2, 2, 3]  # maps over 2, over the group's


@pytest.mark.parametrize("preset", ["regnetx-400mf", "regnety-400mf"])
def test_widths_are_the_ones_nearest_to_a_line(preset: str) -> None:
    options = CARD.options_of({"preset": preset})
    linear = options.linear
    widths = [width for width, blocks in linear.stages.items() for _ in range(blocks)]
    assert len(widths) == linear.depth
    powers = [linear.initial * linear.multiplier**stage for stage in range(-2, 8)]
    for block, width in enumerate(widths):
        line = linear.initial + linear.slope * block
        nearest = min(powers, key=lambda power: abs(torch.tensor(power / line).log()))
        assert width % 8 == 0
        assert abs(width - nearest) <= 4, block
    # The paper's table of models.
    told = {
        "regnetx-400mf": ([1, 2, 7, 12], [32, 64, 160, 384]),
        "regnety-400mf": ([1, 3, 6, 6], [48, 104, 208, 440]),
    }
    stages = options.stages
    assert ([stage.blocks for stage in stages], [stage.maps for stage in stages]) == told[preset]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"widths": (32, 60, 128, 256)},
            r"the 60 maps of stage 2, over bottleneck 1, must be whole.* try 64",
        ),
        (
            {"linear": {"depth": 4, "initial": 24, "slope": 1.0, "multiplier": 3.0}},
            r"linear makes 1 stages \(widths 24\), and a net has 4",
        ),
        (
            {"linear": {"depth": 6, "initial": 24, "slope": 36.0, "multiplier": 2.0}, "depths": (1, 1, 1, 2)},
            "linear decides depths and widths: leave them out",
        ),
    ],
)
def test_what_is_no_net_of_the_space_is_refused(options: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        AnyNetOptions.model_validate(options)


def test_a_flat_line_is_one_width() -> None:
    assert Linear(depth=5, initial=16, slope=0, multiplier=2).stages == {16: 5}
