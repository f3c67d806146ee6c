from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data.images.idx import idx_files
from dlsys.errors import DataError
from dlsys.spec.data import IDXFiles

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def sample(folder: Path, *, gz: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Writes MNIST's four files byte by byte; returns the training part."""
    generator = np.random.default_rng(1)
    made = {}
    for part, rows in (("train", 50), ("t10k", 20)):
        images = generator.integers(256, size=(rows, 3, 4), dtype=np.uint8)
        labels = generator.permutation(np.arange(rows) % 10).astype(np.uint8)
        made[part] = (images, labels)
        for name, data in (
            (f"{part}-images-idx3-ubyte", struct.pack(">IIII", 2051, rows, 3, 4) + images.tobytes()),
            (f"{part}-labels-idx1-ubyte", struct.pack(">II", 2049, rows) + labels.tobytes()),
        ):
            (folder / (name + ".gz" * gz)).write_bytes(gzip.compress(data) if gz else data)
    return made["train"]


def read(folder: Path, **options: object):
    return idx_files(IDXFiles(source="idx", path=".", **options), folder)


@pytest.mark.parametrize("gz", [False, True])
def test_every_byte_arrives(tmp_path: Path, gz: bool) -> None:
    images, labels = sample(tmp_path, gz=gz)
    splits = read(tmp_path)
    assert splits.shape.row == {"image": (1, 3, 4), "label": ()}
    assert splits.shape.classes == 10
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (45, 5, 20)
    batches = [part.batch(np.arange(len(part))) for part in (splits.train, splits.valid)]
    got = {
        ((image * 255).round().to(torch.uint8).numpy().tobytes(), int(label))
        for batch in batches
        for image, label in zip(batch["image"], batch["label"], strict=True)
    }
    assert got == {(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)}


def damage(name: str, change) -> object:
    def do(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))

    return do


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (
            damage(IMAGES, lambda d: b"\x00\x00\x0d\x03" + d[4:]),
            f"./{IMAGES}: starts with 0x00000d03, not IDX's 0x00000803",
        ),
        (damage(LABELS, lambda d: b""), f"./{LABELS}: starts with 0x, not IDX's 0x00000801"),
        (damage(IMAGES, lambda d: d[:10]), f"./{IMAGES}: ends in its header: 10 of 16 bytes"),
        (
            damage(IMAGES, lambda d: d[:-7]),
            f"./{IMAGES}: the header says 50 × 3 × 4 = 600 bytes, the file has 593",
        ),
        (damage(LABELS, lambda d: d + b"\0"), f"./{LABELS}: the header says 50 = 50 bytes, the file has 51"),
        (
            damage(LABELS, lambda d: struct.pack(">II", 2049, 49) + d[9:]),
            f"./{IMAGES} has 50 images, ./{LABELS} 49 labels",
        ),
        (damage(LABELS, lambda d: struct.pack(">II", 2049, 0)), f"./{LABELS}: is empty: its dims are 0"),
        (
            damage("t10k-images-idx3-ubyte", lambda d: struct.pack(">IIII", 2051, 20, 4, 3) + d[16:]),
            ".: training images have 3 × 4 pixels, test images 4 × 3",
        ),
    ],
)
def test_errors_say_expected_and_found(tmp_path: Path, break_it, expected: str) -> None:
    sample(tmp_path)
    break_it(tmp_path)
    with pytest.raises(DataError) as error:
        read(tmp_path)
    assert str(error.value) == expected


def test_missing_file_says_what_was_looked_for(tmp_path: Path) -> None:
    sample(tmp_path)
    (tmp_path / LABELS).unlink()
    with pytest.raises(DataError) as error:
        read(tmp_path)
    assert str(error.value) == f".: no file {LABELS} and no {LABELS}.gz (looked in {tmp_path})"


@pytest.mark.parametrize(
    "change", [lambda d: d[:-9], lambda d: b"no gzip", lambda d: d[:20] + b"\xff\xff" + d[22:]]
)
def test_bad_gzip(tmp_path: Path, change) -> None:
    sample(tmp_path, gz=True)
    damage(f"{IMAGES}.gz", change)(tmp_path)
    with pytest.raises(DataError, match=rf"^\./{IMAGES}\.gz: damaged gzip file: "):
        read(tmp_path)
