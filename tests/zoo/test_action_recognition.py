"""Nets of clips, held against torchvision's of the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlsys.own.operators import with_operators
from dlsys.spec.rows import Shape
from dlsys.zoo.load import load_workload

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "name"), [("r2plus1d-18", "r2plus1d_18"), ("r3d-18", "r3d_18")])
def test_published_sizes_compute_what_torchvisions_do(preset: str, name: str) -> None:
    def built() -> nn.Module:
        from torchvision import models

        found: nn.Module = models.get_model(name, weights=None, num_classes=6)
        return found

    theirs = with_operators("torchvision", built).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    shape = Shape(row={"clip": (6, 3, 33, 28), "label": ()}, classes=6)
    ours = load_workload("action-recognition", {"preset": preset}, shape).build().eval()
    own, state = ours.state_dict(), theirs.state_dict()
    assert [tensor.shape for tensor in own.values()] == [tensor.shape for tensor in state.values()]
    ours.load_state_dict(dict(zip(own, state.values(), strict=True)))
    clip = torch.rand(2, 6, 3, 33, 28)
    with torch.no_grad():
        torch.testing.assert_close(ours(clip), theirs(clip.transpose(1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("temporal", "sees"), [("3d", True), ("2+1d", True), ("none", False)])
def test_the_order_of_frames_counts_where_windows_reach_over_time(temporal: str, sees: bool) -> None:
    shape = Shape(row={"clip": (6, 1, 8, 8), "label": ()}, classes=3)
    options = {"temporal": temporal, "stages": [1], "width": 4}
    model = load_workload("action-recognition", options, shape).build().eval()
    clip = torch.rand(2, 6, 1, 8, 8)
    turned = clip[:, [3, 0, 5, 2, 1, 4]]
    with torch.no_grad():
        assert torch.allclose(model(clip), model(turned), atol=1e-6) == (not sees)


def test_a_clip_is_shown_as_a_strip_of_its_frames() -> None:
    shape = Shape(row={"clip": (3, 1, 4, 5), "label": ()}, classes=3)
    workload = load_workload("action-recognition", {"width": 4}, shape)
    clip = torch.rand(2, 3, 1, 4, 5)
    strips = workload.pictures(workload.build(), {}, clip)["clips"]
    assert isinstance(strips, torch.Tensor)
    assert strips.shape == (2, 1, 4, 15)
    assert torch.equal(strips[1, :, :, 5:10], clip[1, 1])
