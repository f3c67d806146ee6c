"""Volumes: ellipsoids that are made up, and NIfTI files."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data import Splits
from dlsys.data.volumes.ellipsoids import ellipsoids
from dlsys.data.volumes.nifti import nifti
from dlsys.errors import DataError
from dlsys.spec.data import Ellipsoids, Nifti

nibabel = pytest.importorskip("nibabel")
SIDES = (12, 10, 9)


def test_ellipsoids_are_brighter_by_what_is_said() -> None:
    told = {"source": "ellipsoids", "rows": 10, "objects": [1, 1], "radii": [6, 6], "contrast": 3.0}
    splits = ellipsoids(Ellipsoids.model_validate(told), Path())
    batch = splits.train.batch(np.arange(len(splits.train)))
    inside, volume = batch["mask"] == 1, batch["volume"][:, 0]
    assert float(volume[inside].mean() - volume[~inside].mean()) == pytest.approx(3, abs=0.15)
    # A ball of radius 6.
    torch.testing.assert_close(
        inside.sum((1, 2, 3)).float(), torch.full((len(splits.train),), 905.0), rtol=0.05, atol=0
    )
    assert splits.notes == ("ellipsoids: 2.8% of the voxels to train on lie in one",)


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)


def scene(number: int, sides: tuple[int, ...] = SIDES) -> tuple[np.ndarray, np.ndarray]:
    """A volume whose every voxel is another number, and its labels: 1 in the right half, 2 in its upper
    part."""
    voxels = np.arange(np.prod(sides), dtype=np.float32).reshape(sides) + 1000 * number
    labels = np.zeros(sides, np.uint8)
    labels[sides[0] // 2 :] = 1
    labels[sides[0] // 2 :, :, sides[2] // 2 :] = 2
    return voxels, labels


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    for number in range(4):
        voxels, labels = scene(number)
        save(tmp_path / "Task09" / "imagesTr" / f"spleen_{number}.nii.gz", voxels)
        save(tmp_path / "Task09" / "labelsTr" / f"spleen_{number}.nii.gz", labels)
    (tmp_path / "Task09" / "imagesTr" / "._spleen_0.nii.gz").write_bytes(b"macOS")
    told = {"labels": {"0": "background", "1": "spleen", "2": "tumour"}, "numTraining": 4}
    (tmp_path / "Task09" / "dataset.json").write_text(json.dumps(told))
    return tmp_path


def read(folder: Path, **options: object) -> Splits:
    told = {"source": "nifti", "path": "Task09", "size": [8, 8, 8], "valid": 0.25, "test": 0.25, **options}
    return nifti(Nifti.model_validate(told), folder)


def refused(folder: Path, **options: object) -> str:
    with pytest.raises(DataError) as error:
        fetch(read(folder, **options))
    return str(error.value)


def fetch(splits: Splits) -> None:
    for part in (splits.train, splits.valid, splits.test):
        assert part is not None
        part.batch(np.arange(len(part)))


def whole(folder: Path, **options: object) -> dict[str, torch.Tensor]:
    return read(folder, size=[12, 10, 9], patches="centre", **options).train.batch(np.array([0]))


def test_the_decathlons_layout(decathlon: Path) -> None:
    splits = read(decathlon)
    assert splits.shape.row == {"volume": (1, 8, 8, 8), "mask": (8, 8, 8)}
    assert splits.shape.classes == 3
    assert splits.learnt["pixels"]["classes"] == ["background", "spleen", "tumour"]
    # Two patches each way cover what one does not.
    assert [len(part) for part in (splits.train, splits.valid, splits.test) if part] == [16, 8, 8]
    batch = whole(decathlon)
    assert batch["volume"].dtype == torch.float32
    assert float(batch["volume"].mean()) == pytest.approx(0, abs=1e-5)
    assert float(batch["volume"].std(correction=0)) == pytest.approx(1, abs=1e-5)
    assert torch.equal(batch["mask"][0], torch.from_numpy(scene(0)[1].astype(np.int64)))


def test_patches_cover_their_volume_and_stay_together(decathlon: Path) -> None:
    splits = read(decathlon)
    for part in (splits.train, splits.valid):
        for first in range(0, len(part), 8):
            found = part.batch(np.arange(first, first + 8))["volume"]
            # Each voxel is another number: all are there, and of one volume.
            assert len(found.unique()) == np.prod(SIDES)


def test_a_small_volume_is_filled_up_on_both_sides(decathlon: Path) -> None:
    batch = read(decathlon, size=[16, 10, 8]).train.batch(np.array([0]))
    mask = batch["mask"][0]
    assert (mask[:2] == -1).all()
    assert (mask[14:] == -1).all()
    assert (mask[2:14] >= 0).all()
    assert (batch["volume"][0, 0, :2] == 0).all()


def test_axes_run_right_front_and_up_however_they_are_stored(decathlon: Path) -> None:
    expected = whole(decathlon)
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = SIDES[0] - 1
    turned = flipped[:, [2, 0, 1, 3]]  # the third axis first
    for number in range(4):
        for folder, voxels in zip(("imagesTr", "labelsTr"), scene(number), strict=True):
            stored = voxels[::-1].transpose(2, 0, 1)
            save(decathlon / "Task09" / folder / f"spleen_{number}.nii.gz", stored, turned)
    found = whole(decathlon)
    assert torch.equal(found["volume"], expected["volume"])
    assert torch.equal(found["mask"], expected["mask"])


def test_volumes_are_resampled_to_a_spacing(decathlon: Path) -> None:
    voxels, labels = scene(0, (6, 10, 9))
    wide = np.diag([2.0, 1.0, 1.0, 1.0])
    save(decathlon / "Task09" / "imagesTr" / "spleen_0.nii.gz", voxels, wide)
    save(decathlon / "Task09" / "labelsTr" / "spleen_0.nii.gz", labels, wide)
    said = refused(decathlon)
    assert "spleen_1.nii.gz: its voxels are 1 × 1 × 1 mm" in said
    assert "and those of imagesTr/spleen_0.nii.gz 2 × 1 × 1 mm" in said
    options = {"size": [12, 10, 9], "patches": "centre", "spacing": [1, 1, 1]}
    splits = read(decathlon, **options)
    assert splits.notes == ("Task09: 4 volumes of 1 × 1 × 1 mm",)
    for part in (splits.train, splits.valid, splits.test):
        assert part is not None
        for mask in part.batch(np.arange(len(part)))["mask"]:
            assert torch.equal(mask, torch.from_numpy(scene(0)[1].astype(np.int64)))
    coarse = read(decathlon, size=[8, 8, 8], patches="centre", spacing=[2, 2, 3]).train.batch(np.array([0]))
    assert int((coarse["mask"] >= 0).sum()) == 6 * 5 * 3


def test_a_window_cuts_before_the_mean_is_taken(decathlon: Path) -> None:
    values = whole(decathlon, window=[0, 5])["volume"].unique()
    assert len(values) <= 6


def test_a_file_that_changed_is_read_anew(decathlon: Path) -> None:
    before = whole(decathlon)["volume"]
    for number in range(4):
        path = decathlon / "Task09" / "imagesTr" / f"spleen_{number}.nii.gz"
        save(path, -scene(number)[0])
        os.utime(path, ns=(0, number))
    torch.testing.assert_close(whole(decathlon)["volume"], -before)


def test_channels_stand_first(decathlon: Path) -> None:
    for number in range(4):
        voxels, _ = scene(number)
        stacked = np.stack([voxels, -voxels], axis=3)
        save(decathlon / "Task09" / "imagesTr" / f"spleen_{number}.nii.gz", stacked)
    batch = whole(decathlon)
    assert batch["volume"].shape == (1, 2, *SIDES)
    torch.testing.assert_close(batch["volume"][:, 0], -batch["volume"][:, 1])


def test_plain_folders_and_files_that_are_not_gzipped(tmp_path: Path) -> None:
    for number in range(3):
        for folder, voxels in zip(("images", "labels"), scene(number), strict=True):
            save(tmp_path / "Task09" / folder / f"{number}.nii", voxels)
    assert "no dataset.json names the classes" in refused(tmp_path)
    splits = read(tmp_path, classes=["a", "b", "c"])
    assert splits.shape.classes == 3
    assert splits.train.batch(np.array([0]))["mask"].max() <= 2


def test_what_is_wrong_with_files_is_said(decathlon: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = decathlon / "Task09"
    image, label = task / "imagesTr" / "spleen_1.nii.gz", task / "labelsTr" / "spleen_1.nii.gz"
    good_image, good_label = image.read_bytes(), label.read_bytes()
    image.write_bytes(good_image[: len(good_image) // 2])
    assert "imagesTr/spleen_1.nii.gz: cannot be read" in refused(decathlon)
    image.write_bytes(b"nothing of the kind")
    assert "imagesTr/spleen_1.nii.gz: cannot be read" in refused(decathlon)
    save(image, np.zeros((4, 4), np.float32))
    assert "imagesTr/spleen_1.nii.gz: is of 4 × 4: a volume has 3 dims" in refused(decathlon)
    save(image, np.zeros((12, 10, 8), np.float32))
    assert (
        "labelsTr/spleen_1.nii.gz: is of 12 × 10 × 9, and imagesTr/spleen_1.nii.gz of 12 × 10 × 8"
        in refused(decathlon)
    )
    save(image, np.zeros(SIDES, np.float32), np.diag([1.0, 1.0, 1.5, 1.0]))
    assert "labelsTr/spleen_1.nii.gz: lies elsewhere in space" in refused(decathlon)
    save(image, np.full(SIDES, np.nan, np.float32))
    assert "imagesTr/spleen_1.nii.gz: holds voxels that are no number" in refused(decathlon)
    save(image, np.zeros((*SIDES, 2), np.float32))
    assert "has 2 channels, and imagesTr/spleen_0.nii.gz 1" in refused(decathlon)
    image.write_bytes(good_image)
    save(label, np.full(SIDES, 0.5, np.float32))
    assert "labelsTr/spleen_1.nii.gz: holds labels that are no whole number" in refused(decathlon)
    save(label, np.full(SIDES, 3, np.uint8))
    assert "labelsTr/spleen_1.nii.gz: holds the label 3, and there are 3 classes: 0 … 2" in refused(decathlon)
    label.unlink()
    assert "Task09: not in labelsTr: spleen_1.nii.gz" in refused(decathlon)
    label.symlink_to(decathlon / "elsewhere.nii.gz")
    assert "labelsTr/spleen_1.nii.gz: is a link out of" in refused(decathlon)
    label.unlink()
    label.write_bytes(good_label)
    (task / "dataset.json").write_text('{"labels": {"1": "a", "2": "b"}}')
    assert "dataset.json: labels are [1, 2]: they count from 0" in refused(decathlon)
    (task / "dataset.json").write_text('["a"]')
    assert "dataset.json: has no labels by their numbers" in refused(decathlon)
    assert "Task08: no such folder" in refused(decathlon, path="Task08")
    assert "no volumes: imagesTr/*.nii.gz with labelsTr/ or images/*.nii.gz" in refused(
        decathlon, path="Task09/imagesTr"
    )
    assert capfd.readouterr() == ("", "")


def test_without_nibabel_it_says_what_to_install(decathlon: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(DataError) as error:
        read(decathlon)
    assert "nifti needs nibabel" in str(error.value)
    assert error.value.hint == "pip install 'dlsys[volumes]'"
