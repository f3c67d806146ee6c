"""R(2+1)D and R3D against torchvision's, and what they see of time."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlsys.own.imports import import_own
from dlsys.spec.rows import Shape
from dlsys.zoo.drawing import strips
from dlsys.zoo.load import load_workload


def built(options: dict[str, Any], *, clip: tuple[int, ...] = (8, 3, 32, 32), classes: int = 4) -> nn.Module:
    shape = Shape(row={"clip": clip, "label": ()}, classes=classes)
    return load_workload("action-recognition", options, shape).build()


@pytest.mark.parametrize(("preset", "theirs"), [("r3d-18", "r3d_18"), ("r2plus1d-18", "r2plus1d_18")])
def test_torchvisions_weights_compute_the_same(preset: str, theirs: str) -> None:
    """How many there are is held against its documentation with all cards (`test_conformance.py`)."""
    make = import_own(f"torchvision.models.video:{theirs}", "workload")
    with torch.device("meta"):
        wanted = make(num_classes=4)
        found = built({"preset": preset})
    assert [p.shape for p in found.parameters()] == [p.shape for p in wanted.parameters()]
    wanted, found = (net.to_empty(device="cpu").eval() for net in (wanted, found))
    generator = torch.Generator().manual_seed(0)
    for value in wanted.state_dict().values():
        if value.is_floating_point():
            value.uniform_(-0.05, 0.05, generator=generator)
    for name, value in wanted.state_dict().items():
        if name.endswith("running_var"):
            value.fill_(0.01)
    found.load_state_dict(dict(zip(found.state_dict(), wanted.state_dict().values(), strict=True)))
    clip = torch.rand(1, 5, 3, 20, 24, generator=generator)
    with torch.no_grad():
        ours, expected = found(clip), wanted(clip.transpose(1, 2))
    assert float(expected.std()) > 1e-3
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("temporal", ["3d", "2+1d", "none"])
def test_the_order_of_frames_counts_where_time_is_seen(temporal: str) -> None:
    torch.manual_seed(0)
    model = built({"width": 4, "temporal": temporal}).eval()
    clip = torch.rand(2, 8, 3, 32, 32)
    with torch.no_grad():
        forwards, backwards = model(clip), model(clip.flip(1))
    same = torch.allclose(forwards, backwards, atol=1e-5)
    assert same == (temporal == "none")


def test_without_time_a_clip_is_the_mean_of_its_frames() -> None:
    model = built({"width": 4, "temporal": "none", "norm": "batch"}).eval()
    clip = torch.rand(2, 5, 3, 32, 32)
    with torch.no_grad():
        alone = torch.stack([model(clip[:, frame : frame + 1]) for frame in range(5)])
        torch.testing.assert_close(model(clip), alone.mean(0))


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 16, 21), (17, 40, 24)])
def test_takes_clips_of_any_length_and_size(size: tuple[int, int, int]) -> None:
    frames, height, width = size
    model = built({}, clip=(frames, 1, height, width), classes=3)
    assert model(torch.rand(2, frames, 1, height, width)).shape == (2, 3)


def test_strips_show_frames_from_left_to_right() -> None:
    clips = torch.tensor([[0.2, 0.4, 0.6], [0.3, 0.5, 0.7]])[:, :, None, None, None].expand(2, 3, 1, 9, 9)
    sheet = strips(clips, torch.tensor([1, 2]), torch.tensor([1, 0]))[0]
    side, label = 72, 40

    def shade(clip: int, frame: int) -> Tensor:
        return sheet[:, clip * (side + 1) + side // 2, label + frame * (side + 1) + side // 2]

    for clip, frame in ((0, 0), (0, 2), (1, 1)):
        torch.testing.assert_close(
            shade(clip, frame), clips[clip, frame].flatten()[0].expand(3), atol=0.01, rtol=0
        )
    # Where it was taken for another class, both are told, in a colour.
    right, wrong = sheet[:, :side, :label], sheet[:, side + 1 : 2 * side + 1, :label]
    assert torch.equal(right[0], right[2])
    assert not torch.equal(wrong[0], wrong[2])
