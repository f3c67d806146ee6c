"""Every data source keeps the protocol: one row in the table gives a new source its tests."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.feather
import pyarrow.parquet
import pytest
import torch
from objects_on_disk import as_coco, as_kitti, as_voc, scenes
from PIL import Image
from pydantic import TypeAdapter

from dlsys.data import Dataset, Splits, load
from dlsys.registry import SOURCES
from dlsys.spec.data import SECTIONS, Source
from dlsys.spec.data.own import OWN

IMAGE = {"image": torch.float32, "label": torch.int64}
TEXT = {"tokens": torch.int64, "targets": torch.int64}
CLIPS = {"clip": torch.float32, "label": torch.int64}
OBJECTS = {"image": torch.float32, "boxes": torch.float32, "labels": torch.int64}
# What sources of objects tell besides.
BESIDES = {"crowd": torch.bool, "area": torch.float32, "scale": torch.float32, "image_id": torch.int64}

# Options, the fields' types, and the number of rows in all splits (None where Python's version
# decides).
TABLE: dict[str, tuple[dict[str, Any], dict[str, torch.dtype], int | None]] = {
    "digits": ({"size": 12}, IMAGE, 1797),
    "breast_cancer": ({}, {"features": torch.float32, "label": torch.int64}, 569),
    "iris": ({}, {"features": torch.float32, "label": torch.int64}, 150),
    "pydoc": ({"limit": 9000}, TEXT, None),
    "text": ({"path": "a.txt", "window": 7, "valid": 0.2, "test": 0.2}, TEXT, 6 + 2 + 2),
    "texts": (
        {"path": "texts.csv", "text": "words", "target": "y"},
        {"input_ids": torch.int64, "attention_mask": torch.int64, "label": torch.int64},
        40,
    ),
    "csv": (
        {"path": "a.csv", "target": "y", "valid": 0.2},
        {"features": torch.float32, "label": torch.int64},
        40,
    ),
    "parquet": ({"path": "a.parquet", "target": "y"}, {"features": torch.float32, "label": torch.int64}, 40),
    "arrow": ({"path": "a.arrow", "target": "y"}, {"features": torch.float32, "label": torch.int64}, 40),
    "jsonl": ({"path": "a.jsonl", "target": "y"}, {"features": torch.float32, "label": torch.int64}, 40),
    "coco": ({"annotations": "coco/labels.json", "images": "coco/images", "size": (48, 40)}, OBJECTS, 40),
    "voc": ({"path": "voc", "train_list": "train", "size": 32}, OBJECTS, 20),
    "kitti": ({"path": "kitti", "size": 32, "classes": ("a", "b")}, OBJECTS, 40),
    "shapes": ({"rows": 12, "size": 24, "sides": (6, 12), "wanted": "boxes"}, OBJECTS, 12),
    "idx": ({"path": "mnist"}, IMAGE, 30 + 10),
    "cifar": ({"path": "cifar"}, IMAGE, 5 * 8 + 10),
    "image-folder": ({"path": "pictures", "size": 8, "valid": 0.2}, IMAGE, 20),
    "stick-figures": (
        {"rows": 20, "size": 32},
        {"image": torch.float32, "keypoints": torch.float32, "mirror": torch.int64},
        20,
    ),
    "textures": ({"rows": 200, "size": 16}, IMAGE, 200),
    "shapes-and-textures": ({"rows": 200, "size": 16}, {**IMAGE, "texture": torch.int64}, 200),
    "frame-folders": ({"path": "videos", "size": 8, "frames": 3}, CLIPS, 20),
    "moving-shapes": ({"rows": 20, "frames": 3}, CLIPS, 20),
    "mask-folder": (
        {"path": "masked", "size": 8, "valid": 0.2, "classes": ["a", "b", "c"]},
        {"image": torch.float32, "mask": torch.int64},
        10,
    ),
    "ellipsoids": (
        {"rows": 12, "size": 16, "radii": [2, 4]},
        {"volume": torch.float32, "mask": torch.int64},
        12,
    ),
    "nifti": (
        {"path": "volumes", "size": [8, 8, 8], "patches": "centre", "classes": ["a", "b", "c"]},
        {"volume": torch.float32, "mask": torch.int64},
        10,
    ),
    "scans": (
        {"rows": 12, "lines": 8, "columns": 32},
        {"scan": torch.float32, "mask": torch.int64},
        12,
    ),
    "semantic-kitti": (
        {
            "path": "kitti",
            "train_drives": ["00"],
            "lines": 8,
            "columns": 32,
            "classes": {"a": [0], "b": [1], "c": [2]},
        },
        {"scan": torch.float32, "mask": torch.int64},
        6,
    ),
    "synthetic-faces": ({"people": 12, "images": 3, "size": 16}, IMAGE, 36),
    "comparisons": (
        {"of": {"source": "digits"}, "rows": 100, "measured_rows": 20},
        {"images": torch.float32, "same": torch.float32},
        100 + 20 + 20,
    ),
    "synthetic-ctr": (
        {"rows": 300, "cardinality": 9},
        {"dense": torch.float32, "sparse": torch.int64, "label": torch.float32},
        300,
    ),
    "gaussian-ring": ({"rows": 200}, {"point": torch.float32}, 200),
    "piecewise": ({"rows": 200, "noise": 0}, {"features": torch.float32, "target": torch.float32}, 200),
}


def write_files(folder: Path) -> None:
    generator = np.random.default_rng(0)
    (folder / "a.txt").write_text("".join(generator.choice(list("abcdef \n"), 75)))
    cells = [f"{generator.normal():.3f},{'xyz'[i % 3]},{'no' if i % 2 else 'yes'}" for i in range(40)]
    (folder / "a.csv").write_text("\n".join(["n,c,y", *cells]))
    lines = [f"{' '.join('abcd'[: 1 + i % 4])} {'x ' * i},{'no' if i % 2 else 'yes'}" for i in range(40)]
    (folder / "texts.csv").write_text("\n".join(["words,y", *lines]))
    table = pa.csv.read_csv(folder / "a.csv")
    pa.parquet.write_table(table, folder / "a.parquet")
    pa.feather.write_feather(table, str(folder / "a.arrow"))
    (folder / "a.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())))
    (folder / "mnist").mkdir()
    for part, rows in (("train", 30), ("t10k", 10)):
        pixels = generator.integers(256, size=(rows, 5, 4), dtype=np.uint8)
        header = np.array([0x803, rows, 5, 4], ">u4").tobytes()
        (folder / "mnist" / f"{part}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = np.array([0x801, rows], ">u4").tobytes() + bytes(i % 3 for i in range(rows))
        (folder / "mnist" / f"{part}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    rows = scenes(40, objects=(2, 3), overlap=0.0)
    as_coco(rows, folder / "coco")
    as_voc(rows, folder / "voc", ("a", "b", "c"))
    as_kitti(rows, folder / "kitti", ("a", "b", "c"))
    (folder / "cifar").mkdir()
    for name, rows in (*((f"data_batch_{number}", 8) for number in range(1, 6)), ("test_batch", 10)):
        records = generator.integers(256, size=(rows, 1 + 3072), dtype=np.uint8)
        records[:, 0] = (np.arange(rows) + 8 * (ord(name[-1]) % 5)) % 10
        (folder / "cifar" / f"{name}.bin").write_bytes(records.tobytes())
    for name in ("cat", "dog"):
        (folder / "pictures" / name).mkdir(parents=True)
        for i in range(10):
            pixels = generator.integers(256, size=(9, 11, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "pictures" / name / f"{i}.png")
            (folder / "videos" / name / f"{i}").mkdir(parents=True)
            for frame in range(4):
                Image.fromarray(pixels[:, frame:]).save(folder / "videos" / name / f"{i}" / f"{frame}.png")
    write_masks(folder, generator)


def write_masks(folder: Path, generator: np.random.Generator) -> None:
    """Images, volumes and scans with three classes."""
    for name in ("masked/images", "masked/masks", "volumes/images", "volumes/labels"):
        (folder / name).mkdir(parents=True)
    for i in range(10):
        pixels = generator.integers(256, size=(9, 11, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "masked" / "images" / f"{i}.png")
        Image.fromarray(pixels[..., 0] % 3).save(folder / "masked" / "masks" / f"{i}.png")
        voxels = generator.normal(size=(9, 8, 8)).astype(np.float32)
        for part, stored in (("images", voxels), ("labels", (voxels > 0).astype(np.uint8) + (voxels > 1))):
            nibabel.save(nibabel.Nifti1Image(stored, np.eye(4)), folder / "volumes" / part / f"{i}.nii.gz")
    for drive in ("00", "08"):
        base = folder / "kitti" / "sequences" / drive
        for part in ("velodyne", "labels"):
            (base / part).mkdir(parents=True)
        for i in range(3):
            points = generator.normal(size=(200, 4), scale=(9, 9, 1, 1)).astype("<f4")
            (base / "velodyne" / f"{i}.bin").write_bytes(points.tobytes())
            (base / "labels" / f"{i}.label").write_bytes((np.arange(200) % 3).astype("<u4").tobytes())


def read(name: str, folder: Path, **options: Any) -> Splits:
    section = TypeAdapter(Source).validate_python({"source": name, **TABLE[name][0], **options})
    return load(section, folder)


def everything(part: Dataset) -> dict[str, torch.Tensor]:
    return part.batch(np.arange(len(part)))


def parts(splits: Splits) -> list[Dataset]:
    return [part for part in (splits.train, splits.valid, splits.test) if part is not None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_files(folder)
    return folder


@pytest.fixture(params=sorted(TABLE))
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_every_source_is_in_the_table() -> None:
    assert set(SOURCES.names()) >= set(TABLE)
    assert set(SOURCES.own) == {OWN, *TABLE}
    assert set(SECTIONS) == set(TABLE)


def test_fields_are_as_the_shape_says(name: str, folder: Path) -> None:
    splits = read(name, folder)
    fields = TABLE[name][1]
    assert set(splits.shape.row) == set(fields)
    for part in parts(splits):
        assert len(part) > 0
        for field, tensor in everything(part).items():
            assert tensor.dtype == {**BESIDES, **fields}[field]
            if "boxes" not in fields or field == "image":
                assert tuple(tensor.shape) == (len(part), *splits.shape.row[field])
            elif tensor.ndim > 1:  # as many as the row with the most has
                assert tensor.shape[1] <= splits.shape.row["boxes"][0]
            assert tensor.is_contiguous()
            assert tensor.isfinite().all()
    batch = everything(splits.train)
    for unit in ("image", "clip"):
        assert unit not in batch or 0 <= batch[unit].min() < batch[unit].max() <= 1
    if splits.shape.classes:
        labels = next(batch[name] for name in ("label", "labels", "mask") if name in batch)
        assert set(labels.flatten().tolist()) - {-1} == set(range(splits.shape.classes))
    for column, values in enumerate(splits.shape.cardinalities):
        assert 0 <= batch["sparse"][:, column].min() <= batch["sparse"][:, column].max() < values
    if splits.shape.vocabulary:
        tokens = "input_ids" if name == "texts" else "tokens"
        assert max(everything(part)[tokens].max() for part in parts(splits)) < len(splits.shape.vocabulary)


def test_splits_share_no_row_and_lose_none(name: str, folder: Path) -> None:
    splits = read(name, folder)
    rows = TABLE[name][2]
    if rows is not None:
        assert sum(len(part) for part in parts(splits)) == rows
    if name in ("text", "pydoc", "digits", "idx", "iris"):
        return  # rows may be equal by chance, or depend on the cut; their own tests look closer
    seen = [
        tuple(np.concatenate([t[i].double().reshape(-1).numpy() for t in everything(part).values()]))
        for part in parts(splits)
        for i in range(len(part))
    ]
    if name != "csv":
        assert len(set(seen)) == len(seen)


def test_same_options_give_the_same_rows(name: str, folder: Path) -> None:
    for first, second in zip(parts(read(name, folder)), parts(read(name, folder)), strict=True):
        for field, tensor in everything(first).items():
            assert torch.equal(tensor, everything(second)[field])


def test_a_batch_has_the_rows_asked_for_in_order(name: str, folder: Path) -> None:
    train = read(name, folder).train
    whole = everything(train)
    rows = np.array([len(train) - 1, 0, 1, 0])
    for field, tensor in train.batch(rows).items():
        wanted = whole[field][rows]
        if "boxes" in TABLE[name][1] and field != "image" and tensor.ndim > 1:
            # Fewer boxes where no row of the batch has more.
            assert set(wanted[:, tensor.shape[1] :].flatten().tolist()) <= {0, -1}
            wanted = wanted[:, : tensor.shape[1]]
        assert torch.equal(tensor, wanted)


def test_another_split_seed_gives_other_rows(name: str, folder: Path) -> None:
    if name in ("text", "pydoc", "semantic-kitti"):
        return  # split by position, or by drives
    first, second = (everything(read(name, folder, split_seed=seed).valid) for seed in (0, 1))
    assert any(not torch.equal(first[field], second[field]) for field in first)


def test_no_test_set_when_its_share_is_zero(name: str, folder: Path) -> None:
    if name not in ("idx", "cifar", "semantic-kitti"):  # which have their own
        splits = read(name, folder, test=0.0)
        assert splits.test is None
        assert len(splits.valid) > 0


def test_validation_is_never_empty(name: str, folder: Path) -> None:
    if name != "semantic-kitti":
        assert len(read(name, folder, valid=1e-9).valid) > 0
