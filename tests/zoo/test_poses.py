"""People of maps and fields, by values worked out by hand, and the angles of their limbs."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from dlsys.spec.rows import Shape
from dlsys.zoo.load import load_workload
from dlsys.zoo.tasks.pose import count
from dlsys.zoo.vision.openpose.parts import fields_of, maps_of, peaks_of, people_of, unmarked

pytestmark = pytest.mark.usefixtures("seeded")

LIMBS = ((0, 1), (1, 2))
SIZE = (24, 32)


def person(*joints: tuple[float, float]) -> Tensor:
    """(joints, 3); a place of (0, 0) is not marked."""
    return torch.tensor([(x, y, 2.0 if x or y else 0.0) for x, y in joints])


# They cross: nearest ends belong to different people.
ONE = person((4.5, 4.5), (20.5, 12.5), (28.5, 20.5))
OTHER = person((4.5, 18.5), (20.5, 7.5), (28.5, 3.5))


def of(*people: Tensor) -> tuple[Tensor, Tensor]:
    keypoints = torch.stack(people)[None]
    return maps_of(keypoints, SIZE, 1.0)[0], fields_of(keypoints, LIMBS, SIZE, 1.0)[0]


def test_a_hill_stands_at_each_joint_and_the_highest_counts() -> None:
    maps, _ = of(ONE, OTHER)
    assert maps.shape == (3, *SIZE)
    assert maps[0, 4, 4] == 1
    assert maps[0, 18, 4] == 1
    assert maps[0, 4, 6] == pytest.approx(math.exp(-2))
    together, _ = of(person((10.5, 5.5), (0, 0), (0, 0)), person((12.5, 5.5), (0, 0), (0, 0)))
    assert together[0, 5, 11] == pytest.approx(math.exp(-0.5)), "not the sum of both"
    assert not together[1:].any(), "nobody has marked the others"


def test_a_field_points_along_its_limb_and_is_the_mean_where_two_meet() -> None:
    level, upright = person((4.5, 8.5), (20.5, 8.5), (0, 0)), person((12.5, 2.5), (12.5, 14.5), (0, 0))
    _, fields = of(level, upright)
    assert fields[0, :, 8, 6].tolist() == [1, 0]
    assert fields[0, :, 4, 12].tolist() == [0, 1]
    assert fields[0, :, 8, 12].tolist() == [0.5, 0.5]
    assert not fields[0, :, 8, 22].any(), "behind its end"
    assert not fields[0, :, 11, 6].any(), "beside it"
    assert not fields[1].any(), "without an end"


def test_where_an_unmarked_joint_may_be_is_in_its_persons_box() -> None:
    where = unmarked(person((4.5, 4.5), (0, 0), (10.5, 9.5))[None, None], SIZE, 1.0)[0]
    assert not where[0].any()
    assert not where[2].any()
    assert where[1].nonzero().amin(0).tolist() == [3, 3]  # pixels whose middles are in the box
    assert where[1].nonzero().amax(0).tolist() == [10, 11]


def test_a_top_lies_between_pixels() -> None:
    (tops,) = peaks_of(maps_of(torch.tensor([[[[7.8, 5.3, 2.0]]]]), SIZE, 2.0)[0], 0.3)
    assert tops.shape == (1, 3)
    torch.testing.assert_close(tops[0, :2], torch.tensor([7.8, 5.3]), atol=0.05, rtol=0)


def test_people_who_cross_keep_their_limbs() -> None:
    found = people_of(*of(ONE, OTHER), LIMBS, 0.3)
    assert len(found) == 2
    for true in (ONE, OTHER):
        errors = [(one[:, :2] - true[:, :2]).abs().max() for one in found]
        assert min(errors) < 0.3


def test_half_a_person_is_found_as_far_as_there_are_joints() -> None:
    maps, fields = of(ONE, OTHER)
    maps[2] = 0
    found = people_of(maps, fields, LIMBS, 0.3)
    assert len(found) == 0, "two joints of three are nobody"
    four = ((0, 1), (1, 2), (2, 3))
    whole = torch.cat([ONE, torch.tensor([[28.5, 8.5, 0.0]])])
    maps, fields = maps_of(whole[None, None], SIZE, 1.0)[0], fields_of(whole[None, None], four, SIZE, 1.0)[0]
    (only,) = people_of(maps, fields, four, 0.3)
    assert (only[:, 2] > 0).tolist() == [True, True, True, False]


def test_nobody_is_in_an_empty_image() -> None:
    assert people_of(torch.zeros(3, *SIZE), torch.zeros(2, 2, *SIZE), LIMBS, 0.3).shape == (0, 3, 3)


def test_joints_count_in_the_right_person_alone() -> None:
    """Sides of 24 and 24 pixels: a joint is found within 2.4."""
    true = torch.stack([ONE, OTHER])
    exact = count(true, true, LIMBS)
    assert exact.tolist() == [6, 6, 4, 4, 0]
    swapped = true.clone()
    swapped[:, 2] = true[[1, 0], 2]  # each with the other's last joint
    assert count(swapped, true, LIMBS).tolist() == [4, 6, 2, 4, 0]
    near, far = true.clone(), true.clone()
    near[0, 0, 0] += 2.3
    far[0, 0, 0] += 2.5
    assert count(near, true, LIMBS).tolist() == [6, 6, 4, 4, 0]
    assert count(far, true, LIMBS).tolist() == [5, 6, 3, 4, 0]
    assert count(torch.cat([true, true[:1]]), true, LIMBS).tolist() == [6, 6, 4, 4, 1]
    assert count(true[:0], true, LIMBS).tolist() == [0, 6, 0, 4, 0]
    assert count(true, true[:0], LIMBS).tolist() == [0, 0, 0, 0, 2]
    missing = true.clone()
    missing[0, 1, 2] = 0  # not marked: neither it nor its limbs count
    assert count(true, missing, LIMBS).tolist() == [5, 5, 2, 2, 0]


def test_the_loss_of_what_is_true_is_nothing() -> None:
    shape = Shape(row={"image": (1, 48, 64), "keypoints": (2, 3, 3), "mirror": (3,)}, limbs=LIMBS)
    workload = load_workload("openpose", {"field_stages": 1, "map_stages": 1}, shape)
    keypoints = torch.stack([ONE, OTHER])[None] * torch.tensor([2.0, 2.0, 1.0])
    outputs, _ = workload.forward(workload.build(), {"image": torch.rand(1, 1, 48, 64)}, None)
    maps, fields = of(ONE, OTHER)
    true = type(outputs)([fields.flatten(0, 1)[None]], [maps[None]])
    assert float(workload.objective(true, {"keypoints": keypoints}).value) == pytest.approx(0, abs=1e-6)
    sums = workload.measure(true, {"keypoints": keypoints})
    assert sums["joints"].tolist() == [6, 6]
    assert workload.summarize({**sums, "rows": torch.tensor(1.0)})["pck"] == 1
    hidden = keypoints.clone()
    hidden[0, 0, 1, 2] = 0
    wrong = type(outputs)([fields.flatten(0, 1)[None]], [maps.clone()[None]])
    wrong.maps[0][0, 1, 14, 22] = 5.0  # where that joint may well be
    said = float(workload.objective(wrong, {"keypoints": hidden}).value)
    assert said < float(workload.objective(wrong, {"keypoints": keypoints}).value)


def test_angles_differ_by_the_shorter_way_round() -> None:
    shape = Shape(row={"clip": (1, 1, 16, 16), "angles": (1, 2)})
    workload = load_workload("kinematics-2d", {"width": 8}, shape)
    angles = torch.tensor([[[math.pi - 0.1, 0.2]]])
    said = torch.tensor([-math.pi + 0.1, 0.1])  # 0.2 and 0.1 away
    outputs = torch.stack([said.sin(), said.cos()], -1)[None, None] * 3
    error = float(workload.measure(outputs, {"angles": angles})["angle_error"])
    assert error == pytest.approx(math.degrees(0.15), rel=1e-5)


def test_frames_see_their_neighbours_where_they_are_asked_to() -> None:
    shape = Shape(row={"clip": (5, 1, 16, 16), "angles": (5, 2)})
    for temporal in (True, False):
        workload = load_workload("kinematics-2d", {"width": 8, "temporal": temporal}, shape)
        model, clip = workload.build(), torch.rand(1, 5, 1, 16, 16)
        other = clip.clone()
        other[:, 3] = 0
        changed = (model(clip) - model(other)).abs().amax((0, 2, 3)) > 1e-6
        assert changed.tolist() == [False, temporal, temporal, True, temporal]
