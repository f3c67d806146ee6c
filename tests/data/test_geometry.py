"""Images, boxes, masks and keypoints go the same way: told by formulas, by undoing, and by looking at
pixels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from dlsys.data import load, rowwise
from dlsys.data.augment import augment
from dlsys.data.colour import turned
from dlsys.data.geometry import flipped, moved, shifted, warped
from dlsys.data.mixing import mixed, partners
from dlsys.errors import DataError
from dlsys.spec.data import Shapes
from dlsys.spec.train.regularizer import DataAugmentation, OwnTransform


def options(**given: Any) -> DataAugmentation:
    return DataAugmentation(name="data-augmentation", **given)


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    found = load(Shapes(source="shapes", rows=40, size=48, wanted="instances", noise=0, sides=(10, 20)), None)
    rows = found.train.batch(np.arange(len(found.train)))
    count = len(rows["image"])
    centres = (rows["boxes"][..., :2] + rows["boxes"][..., 2:]) / 2
    seen = (rows["labels"] >= 0).float()
    return {
        **rows,
        "mask": (rows["masks"] * (rows["labels"] + 1)[..., None, None]).amax(1),
        "keypoints": torch.cat([centres * seen[..., None], seen[..., None]], 2)[:, :, None],
        "key": rowwise.keys(0, 0, np.arange(count)),
    }


def same(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float = 0.0) -> None:
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=tolerance, msg=name)


@pytest.mark.parametrize("upright", [False, True])
def test_mirrored_twice_is_as_before(batch: dict[str, Tensor], upright: bool) -> None:
    everybody = torch.ones(len(batch["image"]), dtype=torch.bool)
    once = flipped(batch, everybody, upright=upright)
    assert not torch.equal(once["boxes"], batch["boxes"])
    assert torch.equal(once["image"], batch["image"].flip(-2 if upright else -1))
    same(flipped(once, everybody, upright=upright), batch)


def turn(batch: dict[str, Tensor], degrees: float) -> dict[str, Tensor]:
    angle, middle = math.radians(degrees), 24.0
    cos, sin = math.cos(angle), math.sin(angle)
    matrix = torch.tensor(
        [[cos, -sin, middle - cos * middle + sin * middle], [sin, cos, middle - sin * middle - cos * middle]],
        dtype=torch.float64,
    )
    return warped(batch, matrix.repeat(len(batch["image"]), 1, 1))


def test_four_quarter_turns_are_none(batch: dict[str, Tensor]) -> None:
    found = batch
    for _ in range(4):
        found = turn(found, 90)
    same(found, batch, 1e-4)
    quarter = turn(batch, 90)
    # From the x axis to the y axis, which points down: clockwise.
    torch.testing.assert_close(quarter["image"], batch["image"].rot90(-1, (-2, -1)), rtol=0, atol=1e-5)
    assert torch.equal(quarter["masks"], batch["masks"].rot90(-1, (-2, -1)))


def tight(masks: Tensor) -> Tensor:
    """Straight from the definition."""
    boxes = torch.zeros(*masks.shape[:2], 4)
    for row in range(masks.shape[0]):
        for place in range(masks.shape[1]):
            y, x = masks[row, place].nonzero(as_tuple=True)
            if len(y):
                boxes[row, place] = torch.tensor([x.min(), y.min(), x.max() + 1, y.max() + 1])
    return boxes


ALL = {
    "flip": True,
    "flip_vertical": True,
    "rotate": 30.0,
    "scale": (0.7, 1.5),
    "shear": 10.0,
    "translate": 0.2,
    "crop": 0.5,
    "shift": 3,
}


def test_boxes_lie_around_what_they_hold(batch: dict[str, Tensor]) -> None:
    """With masks boxes are tight; without them they hold all that is left, and centres stay inside."""
    with_masks = moved(batch, options(**ALL))
    there = with_masks["labels"] >= 0
    assert 0.3 < there.float().mean() < 1
    assert torch.equal(with_masks["boxes"], tight(with_masks["masks"]))
    assert torch.equal(with_masks["area"] > 0, there)
    alone = {name: value for name, value in batch.items() if name not in ("masks", "mask")}
    loose = moved(alone, options(**ALL))
    both = there & (loose["labels"] >= 0)
    inner, outer = with_masks["boxes"][both], loose["boxes"][both]
    # Half a pixel is what reading at the nearest pixel may add.
    assert (outer[:, :2] <= inner[:, :2] + 0.51).all()
    assert (outer[:, 2:] >= inner[:, 2:] - 0.51).all()
    points = loose["keypoints"][:, :, 0]
    seen = both & (points[..., 2] > 0)
    box = loose["boxes"][seen]
    assert ((points[seen][:, :2] >= box[:, :2] - 1e-3) & (points[seen][:, :2] <= box[:, 2:] + 1e-3)).all()


def test_objects_keep_their_colours(batch: dict[str, Tensor]) -> None:
    """The pixels that a mask names after all moves are those that it named before."""
    found = moved(batch, options(**ALL))
    checked = 0
    for row in range(len(batch["image"])):
        for place in (found["labels"][row] >= 0).nonzero().flatten().tolist():
            if found["masks"][row, place].sum() < 40:
                continue  # mostly edges, which are read between an object and the ground
            before = batch["image"][row][:, batch["masks"][row, place]].median(1).values
            now = found["image"][row][:, found["masks"][row, place]].median(1).values
            torch.testing.assert_close(now, before, rtol=0, atol=0.02)
            checked += 1
    assert checked > 20


def test_what_comes_from_outside_counts_for_no_class(batch: dict[str, Tensor]) -> None:
    found = moved(batch, options(shift=20))
    ones = moved({**batch, "image": torch.ones_like(batch["image"])}, options(shift=20))["image"][:, 0]
    assert torch.equal(found["mask"] == -1, ones == 0)
    assert (found["mask"] == -1).any()
    turned = moved(batch, options(rotate=45))
    assert (turned["mask"][:, 0, 0] == -1).any()


def test_a_warp_is_torchs(batch: dict[str, Tensor]) -> None:
    """Against a matrix made by hand: turned, grown, slanted and moved, read back by torch's own grid."""
    linear = torch.tensor([[1.2, -0.4], [0.3, 0.8]], dtype=torch.float64)
    offset = torch.tensor([3.0, -2.0], dtype=torch.float64)
    matrix = torch.cat([linear, offset[:, None]], 1).repeat(len(batch["image"]), 1, 1)
    back = linear.inverse()
    # In units of half a side around the middle.
    middle = torch.tensor([24.0, 24.0], dtype=torch.float64)
    theta = torch.cat([back, ((back @ (middle - offset) - middle) / 24)[:, None]], 1)
    grid = affine_grid(
        theta.repeat(len(batch["image"]), 1, 1), list(batch["image"].shape), align_corners=False
    )
    wanted = grid_sample(batch["image"].double(), grid, align_corners=False)
    torch.testing.assert_close(warped(batch, matrix)["image"].double(), wanted, rtol=0, atol=1e-4)


def test_a_crop_shows_a_part_and_nothing_else(batch: dict[str, Tensor]) -> None:
    ones = {**batch, "image": torch.ones_like(batch["image"])}
    found = moved(ones, options(crop=0.3))
    assert (found["image"] > 0.49).all(), "nothing from outside; half a pixel at the edge"
    grown = found["area"].sum() / batch["area"].sum()
    assert 1 < grown < 1 / 0.3


def test_few_pixels_of_a_box_are_no_object() -> None:
    batch = {
        "image": torch.zeros(1, 1, 20, 20),
        "boxes": torch.tensor([[[0.0, 0, 8, 8], [10, 10, 18, 18], [0, 0, 0, 0]]]),
        "labels": torch.tensor([[1, 0, -1]]),
        "area": torch.tensor([[50.0, 64, 0]]),
        "key": torch.zeros(1).long(),
    }
    found = shifted(batch, torch.tensor([-7]), torch.tensor([0]))
    assert found["labels"].tolist() == [[-1, 0, -1]]
    assert found["boxes"].tolist() == [[[0, 0, 0, 0], [10, 3, 18, 11], [0, 0, 0, 0]]]
    half = shifted(batch, torch.tensor([-4]), torch.tensor([0]))
    assert half["labels"].tolist() == [[1, 0, -1]]
    assert half["area"].tolist() == [[25, 64, 0]]


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_colours(name: str, batch: dict[str, Tensor]) -> None:
    still = augment(batch, options(**{name: 0.0}))
    assert torch.equal(still["image"], batch["image"])
    found = augment(batch, options(**{name: 0.5}))["image"]
    assert (found >= 0).all()
    assert (found <= 1).all()
    changed = (found - batch["image"]).abs().flatten(1).amax(1)
    assert (changed > 0.01).float().mean() > 0.9
    grey = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    if name in ("saturation", "hue"):
        # What is not cut off at 0 or 1 keeps its brightness.
        inside = ((found > 0) & (found < 1)).all(1)
        before, now = (batch["image"] * grey).sum(1)[inside], (found * grey).sum(1)[inside]
        torch.testing.assert_close(now, before, rtol=0, atol=2e-3)
    plain = batch["image"].mean(1, keepdim=True)
    once = augment({**batch, "image": plain}, options(**{name: 0.5}))["image"]
    assert torch.equal(once, plain) == (name in ("saturation", "hue"))


def test_a_full_turn_of_hue_is_none(batch: dict[str, Tensor]) -> None:
    count = len(batch["image"])
    torch.testing.assert_close(turned(batch["image"], torch.ones(count)), batch["image"], rtol=0, atol=1e-5)
    half = turned(batch["image"], torch.full((count,), 0.5))
    assert not torch.allclose(half, batch["image"], atol=0.1)


@pytest.mark.parametrize(("mixup", "cutmix"), [(1.0, 0.0), (0.0, 1.0), (0.4, 1.0)])
def test_mixing(mixup: float, cutmix: float) -> None:
    """Of images of one number each, what is left of it is the share of its class."""
    key = rowwise.keys(0, 0, np.arange(400))
    other = partners(key, 5)
    assert sorted(set(other.tolist())) == [0, 1, 2, 3, 4]
    zeros = {"image": torch.zeros(400, 1, 10, 10), "label": torch.zeros(400).long(), "key": key}
    ones = {"image": torch.ones(400, 1, 10, 10), "label": torch.full((400,), 2), "key": key}
    found = mixed(zeros, ones, options(mixup=mixup, cutmix=cutmix), 3)
    share = found["image"].mean((1, 2, 3))
    torch.testing.assert_close(found["mixed"][:, 2], share, rtol=0, atol=1e-5)
    torch.testing.assert_close(found["mixed"].sum(1), torch.ones(400))
    assert (found["mixed"][:, 1] == 0).all()
    assert torch.equal(found["label"], zeros["label"])
    cut = ((found["image"] == 0) | (found["image"] == 1)).flatten(1).all(1)
    assert abs(float(cut.float().mean()) - (0 if not cutmix else 0.5 if mixup else 1)) < 0.1
    # A Beta(1, 1) is even; a rectangle's share is less where the image's edge cuts it off.
    if mixup == 1:
        assert abs(float(share.mean()) - 0.5) < 0.05
    part = {name: value[30:50] for name, value in zeros.items()}
    again = mixed(part, {n: v[30:50] for n, v in ones.items()}, options(mixup=mixup, cutmix=cutmix), 3)
    assert torch.equal(again["image"], found["image"][30:50])


def test_what_cannot_follow_is_refused(batch: dict[str, Tensor]) -> None:
    own = options(transforms=[OwnTransform(name="torch:flip")])
    with pytest.raises(DataError, match="these rows have places in their images"):
        augment(batch, own, [lambda image: image])
    with pytest.raises(DataError, match="mixup and cutmix are of images with classes, and these rows have"):
        mixed(batch, batch, options(mixup=1.0), 3)
    with pytest.raises(ValueError, match=r"2.0 is more than 1.0: the smaller stands first"):
        options(scale=(2.0, 1.0))
