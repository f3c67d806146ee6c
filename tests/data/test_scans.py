"""Laser scans: what a beam meets, what an image of points shows, and SemanticKITTI's files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data import Splits
from dlsys.data.scans.kitti import semantic_kitti
from dlsys.data.scans.projection import View, scan_of
from dlsys.data.scans.rendered import scans
from dlsys.errors import DataError
from dlsys.spec.data import Scans, SemanticKITTI

VIEW = View(lines=16, columns=64, up=3.0, down=-25.0, width=360.0)


def rendered(**options: object) -> dict[str, torch.Tensor]:
    told = {"source": "scans", "rows": 12, "lost": 0.0, "noise": 0.0, **options}
    train = scans(Scans.model_validate(told), Path()).train
    return train.batch(np.arange(len(train)))


def test_a_point_of_each_pixel_comes_back_to_it() -> None:
    directions = VIEW.directions().reshape(-1, 3)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    distance = np.random.default_rng(0).uniform(2, 50, len(directions))
    shuffled = np.random.default_rng(1).permutation(len(directions))
    points = (directions * distance[:, None])[shuffled]
    scan, number = scan_of(points, np.linspace(0, 1, len(points)), VIEW)
    assert np.array_equal(shuffled[number.ravel()], np.arange(len(directions)))
    np.testing.assert_allclose(scan[4].ravel(), distance, rtol=1e-5)
    np.testing.assert_allclose(
        scan[:3].reshape(3, -1).T, directions * distance[:, None], rtol=1e-4, atol=1e-5
    )


def test_the_nearest_point_hides_those_behind() -> None:
    ahead = np.array([[9.0, 0.1, -1.0], [4.5, 0.05, -0.5], [18.0, 0.2, -2.0]])
    scan, number = scan_of(ahead, np.ones(3), VIEW)
    assert (number >= 0).sum() == 1
    assert number.max() == 1
    assert scan[4].max() == pytest.approx(np.linalg.norm(ahead[1]))


def test_what_is_not_looked_at_is_not_shown() -> None:
    points = np.array(
        [[0.0, 0.0, 0.0], [1.0, 0.0, 9.0], [1.0, 0.0, -9.0], [-9.0, 0.0, -1.0], [0.0, 9.0, -1.0]]
    )
    assert (scan_of(points, np.ones(5), VIEW)[1] >= 0).sum() == 2
    assert (scan_of(points, np.ones(5), VIEW._replace(width=90.0))[1] >= 0).sum() == 0
    assert (scan_of(np.zeros((0, 3)), np.zeros(0), VIEW)[0] == 0).all()


def test_left_stands_to_the_left_and_high_above() -> None:
    points = np.array([[9.0, 3.0, -1.0], [9.0, -3.0, -1.0], [9.0, 3.0, 0.2]])
    _, number = scan_of(points, np.ones(3), VIEW._replace(width=90.0))
    place = {int(number[tuple(at)]): tuple(at) for at in np.argwhere(number >= 0)}
    assert place[0][1] < 32 <= place[1][1]
    assert place[2][0] < place[0][0]


def test_the_plane_is_where_its_points_say() -> None:
    batch = rendered()
    height = batch["scan"][:, 2]
    torch.testing.assert_close(
        height[batch["mask"] == 0], torch.full_like(height[batch["mask"] == 0], -1.73), atol=1e-4, rtol=0
    )
    above = height[batch["mask"] > 0]
    assert above.min() > -1.74
    assert above.max() < -1.73 + 2.51
    assert (batch["scan"][:, 4][batch["mask"] < 0] == 0).all()
    assert (batch["scan"][:, 4][batch["mask"] >= 0] > 0).all()
    assert set(batch["mask"].unique().tolist()) == {-1, 0, 1, 2}


def test_cylinders_are_as_thin_as_they_are_said_to_be() -> None:
    batch = rendered(objects=[1, 1], rows=60, columns=512)
    for scan, mask in zip(batch["scan"], batch["mask"], strict=True):
        points = scan[:2, mask == 2]
        if points.shape[1] > 1:
            assert (points.amax(1) - points.amin(1)).max() < 1.0
        points = scan[:2, mask == 1]
        if points.shape[1] > 1:
            assert (points.amax(1) - points.amin(1)).norm() < 7.7  # a diagonal turned by 45 degrees


def test_some_beams_are_lost() -> None:
    share = [float((rendered(lost=lost)["mask"][:, 8:] < 0).float().mean()) for lost in (0.0, 0.3)]
    assert share[0] < 0.02
    assert share[1] == pytest.approx(0.3, abs=0.03)


def write(folder: Path, drive: str, scan: int, points: np.ndarray, labels: np.ndarray) -> None:
    base = folder / "kitti" / "sequences" / drive
    for name in ("velodyne", "labels"):
        (base / name).mkdir(parents=True, exist_ok=True)
    (base / "velodyne" / f"{scan:06}.bin").write_bytes(points.astype("<f4").tobytes())
    (base / "labels" / f"{scan:06}.label").write_bytes(labels.astype("<u4").tobytes())


@pytest.fixture
def kitti(tmp_path: Path) -> Path:
    """A car with an instance's number, a road and something unlabelled, in three scans of two drives."""
    points = np.array([[9, 0, -1, 0.5], [9, 4, -1.5, 0.25], [9, -4, -1, 1], [18, 0, -2, 0.1]])
    for drive, scan in (("00", 0), ("00", 1), ("08", 0)):
        write(tmp_path, drive, scan, points, np.array([10 + (7 << 16), 40, 0, 40]))
    return tmp_path


def kitti_of(folder: Path, **options: object) -> Splits:
    told = {"source": "semantic-kitti", "path": "kitti", "train_drives": ["00"], "columns": 128, **options}
    return semantic_kitti(SemanticKITTI.model_validate(told), folder)


def refused(folder: Path, **options: object) -> str:
    with pytest.raises(DataError) as error:
        kitti_of(folder, **options).train.batch(np.array([0, 1]))
    return str(error.value)


def test_kittis_points_and_labels(kitti: Path) -> None:
    splits = kitti_of(kitti)
    assert (len(splits.train), len(splits.valid), splits.test) == (2, 1, None)
    assert splits.shape.row == {"scan": (5, 64, 128), "mask": (64, 128)}
    assert splits.shape.classes == 19
    batch = splits.train.batch(np.array([1]))
    car, road = (splits.learnt["pixels"]["classes"].index(name) for name in ("car", "road"))
    # The fourth point hides behind the first, the third is of no class.
    assert sorted(batch["mask"][batch["mask"] >= 0].tolist()) == sorted([car, road])
    assert int((batch["scan"][:, 4] > 0).sum()) == 3
    (at,) = (batch["mask"] == car).nonzero()
    assert batch["scan"][at[0], :, at[1], at[2]].tolist() == pytest.approx([9, 0, -1, 0.5, 82**0.5])


def test_own_classes_of_kittis_labels(kitti: Path) -> None:
    splits = kitti_of(kitti, classes={"rest": [0, 40], "car": [10]})
    assert splits.shape.classes == 2
    found = splits.train.batch(np.array([0]))["mask"]
    assert sorted(found[found >= 0].tolist()) == [0, 0, 1]
    assert "data.classes.car: 40 stands for another class too" in refused(
        kitti, classes={"rest": [0, 40], "car": [40]}
    )
    assert "data.classes.car: 70000 is above 65535" in refused(kitti, classes={"car": [70000]})


def test_what_is_wrong_with_kittis_files_is_said(kitti: Path) -> None:
    assert "kitti: no sequences/05/velodyne/*.bin" in refused(kitti, train_drives=["05"])
    base = kitti / "kitti" / "sequences" / "00"
    points = (base / "velodyne" / "000000.bin").read_bytes()
    (base / "velodyne" / "000000.bin").write_bytes(points[:-3])
    assert "velodyne/000000.bin: is cut off: 61 bytes are no multiple of 16" in refused(kitti)
    (base / "velodyne" / "000000.bin").write_bytes(points[:-16])
    assert "labels/000000.label: has 4 labels, and sequences/00/velodyne/000000.bin 3 points" in refused(
        kitti
    )
    (base / "velodyne" / "000000.bin").write_bytes(b"\xff" * 64)
    assert "velodyne/000000.bin: holds a point that is no number" in refused(kitti)
    far = np.frombuffer(points, "<f4").copy()
    far[2] = -3e19
    (base / "velodyne" / "000000.bin").write_bytes(far.tobytes())
    assert "velodyne/000000.bin: holds a point 3e+19 m away, farther than 1e+06 m" in refused(kitti)
    (base / "labels" / "000000.label").unlink()
    assert "1 scans have no labels: sequences/00/labels/000000.label" in refused(kitti)
