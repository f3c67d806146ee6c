"""People of sticks: what is planted, and that joints follow their images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from dlsys.data.augment import augment
from dlsys.data.geometry import flipped, moved
from dlsys.data.poses.stick_figures import JOINTS, LIMBS, MIRROR, _body, stick_figures
from dlsys.errors import DataError
from dlsys.spec.data import StickFigures
from dlsys.spec.train.regularizer import DataAugmentation


def batch(**options: object) -> dict[str, torch.Tensor]:
    given = StickFigures.model_validate({"source": "stick-figures", "noise": 0.0, **options})
    rows = stick_figures(given, Path()).train
    found = rows.batch(np.arange(len(rows)))
    return {**found, "key": torch.arange(len(rows))}


def red_above_blue(found: dict[str, torch.Tensor], joint: str) -> torch.Tensor:
    """Of the people of each row whose joint is in the image: how much redder than blue it is there."""
    points = found["keypoints"][:, :, JOINTS.index(joint)]
    row, person = torch.where(points[..., 2] > 0)
    x, y = points[row, person, :2].long().unbind(1)
    image = found["image"]
    return image[row, 0, y, x] - image[row, 2, y, x]


def test_joints_lie_where_limbs_end_and_tell_left_from_right() -> None:
    found = batch(rows=60, people=(1, 1))
    assert (found["keypoints"][..., 2] == 2).all()
    assert (red_above_blue(found, "left hand") > 0.3).all()
    assert (red_above_blue(found, "right hand") < -0.3).all()
    assert (red_above_blue(found, "left foot") > 0.3).float().mean() > 0.9  # a foot may hide the other
    assert found["keypoints"][..., :2].min() >= 2
    assert found["keypoints"][..., :2].max() <= 62


def test_who_is_not_there_is_three_zeros() -> None:
    found = batch(rows=60, people=(1, 3))
    there = (found["keypoints"][..., 2] > 0).all(2)
    assert set(there.sum(1).tolist()) == {1, 2, 3}
    assert not found["keypoints"][~there].any()


def test_a_mirror_is_its_own_inverse_and_keeps_the_head() -> None:
    assert [MIRROR[MIRROR[joint]] for joint in range(len(JOINTS))] == list(range(len(JOINTS)))
    for joint, other in enumerate(MIRROR):
        side, _, name = JOINTS[joint].rpartition(" ")
        assert JOINTS[other] == f"{ {'left': 'right ', 'right': 'left '}.get(side, '') }{name}"


@pytest.mark.parametrize("upright", [False, True])
def test_a_mirrored_person_has_the_left_hand_where_the_right_one_was(upright: bool) -> None:
    before = batch(rows=40, people=(1, 2))
    chosen = torch.arange(len(before["image"])) % 2 == 0
    after = flipped(before, chosen, upright=upright)
    assert torch.equal(after["keypoints"][~chosen], before["keypoints"][~chosen])
    # What is painted red is a right arm in the mirror: where there is one person alone, nothing hides it.
    alone = (before["keypoints"][:, 1, 0, 2] == 0) & chosen
    one = {name: value[alone] for name, value in after.items()}
    assert (red_above_blue(one, "right elbow") > 0.2).all()
    assert (red_above_blue(one, "left elbow") < -0.2).all()
    again = flipped(after, chosen, upright=upright)
    torch.testing.assert_close(again["keypoints"], before["keypoints"])
    assert torch.equal(again["image"], before["image"])


def test_joints_that_leave_the_image_are_not_marked() -> None:
    found = moved(batch(rows=40, people=(1, 2)), DataAugmentation(name="data-augmentation", translate=0.4))
    points = found["keypoints"]
    gone = points[..., 2] == 0
    assert gone[:, 0].any()
    assert not gone[:, 0].all()
    assert not points[gone].any()
    assert (points[~gone][:, :2] >= 0).all()
    assert (points[~gone][:, :2] < 64).all()


def test_angles_are_those_of_the_limbs_that_are_drawn() -> None:
    found = batch(rows=20, wanted="angles", size=96, frames=3)
    assert found["angles"].shape[1:] == (3, len(LIMBS))
    clip, angles = found["clip"], found["angles"]
    red = (clip[:, :, 0] - clip[:, :, 2] > 0.4).float()
    y, x = torch.arange(96.0)[:, None] + 0.5, torch.arange(96.0) + 0.5
    left = torch.stack([(red * x).sum((2, 3)), (red * y).sum((2, 3))], -1) / red.sum((2, 3))[..., None]
    blue = (clip[:, :, 2] - clip[:, :, 0] > 0.4).float()
    right = torch.stack([(blue * x).sum((2, 3)), (blue * y).sum((2, 3))], -1) / blue.sum((2, 3))[..., None]
    # The middle of the left side lies further to the image's right, the more its limbs turn that way.
    reach = angles[..., [2, 3, 6, 7]].sin().sum(-1) - angles[..., [4, 5, 8, 9]].sin().sum(-1)
    apart = (left - right)[..., 0]
    together = torch.corrcoef(torch.stack([reach.flatten(), apart.flatten()]))[0, 1]
    assert together > 0.7
    steps = (angles[:, 1:] - angles[:, :-1]).abs()
    assert 0 < steps.mean() < 0.5, "limbs swing from frame to frame"


def test_a_body_hangs_down_where_all_angles_are_nothing() -> None:
    """Shares of its height: a head 0.15, a trunk 0.3, arms twice 0.16, legs twice 0.22."""
    joints = _body(np.zeros(len(LIMBS)), 100.0, np.array([50.0, 60.0]))
    assert joints[:, 0] == pytest.approx(50)
    heights = dict(zip(JOINTS, joints[:, 1].round(6).tolist(), strict=True))
    assert heights["pelvis"] == 60
    assert heights["neck"] == 30
    assert heights["left hand"] == heights["right hand"] == 62
    assert heights["left foot"] == heights["right foot"] == 104
    angles = np.zeros(len(LIMBS))
    angles[3] = np.pi / 2  # the left forearm, to the image's right
    assert _body(angles, 100.0, np.zeros(2))[JOINTS.index("left hand")] == pytest.approx([16, -14])


def test_clips_whose_angles_would_stay_behind_are_not_turned() -> None:
    found = batch(rows=8, wanted="angles", size=32, frames=2)
    for told in ({"flip": True}, {"rotate": 10}, {"shear": 5}):
        options = DataAugmentation.model_validate({"name": "data-augmentation", **told})
        with pytest.raises(DataError, match="these rows have angles, which would stay as they are"):
            augment(found, options)
    varied = augment(found, DataAugmentation(name="data-augmentation", shift=2, brightness=0.2))
    assert not torch.equal(varied["clip"], found["clip"])


def test_the_fewest_are_not_more_than_the_most() -> None:
    with pytest.raises(ValidationError, match="must be the fewest and the most, got 3 and 2"):
        StickFigures(source="stick-figures", people=(3, 2))
