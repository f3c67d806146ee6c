"""MNIST's IDX format."""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlsys.data.dataset import Splits
from dlsys.data.files import read_bytes
from dlsys.data.images.byte_images import ByteImages, byte_splits
from dlsys.data.images.normalize import normalized
from dlsys.errors import DataError
from dlsys.spec.data import IDXFiles
from dlsys.spec.rows import Shape


def idx_files(options: IDXFiles, folder: Path) -> Splits:
    """MNIST's four files: `image` float32 (1, H, W) in 0…1, `label` int64.

    The format is at http://yann.lecun.com/exdb/mnist: two zero bytes, the type (8: bytes), the
    number of dims, each dim as a big-endian uint32, then the bytes. The ten thousand are the
    test set; validation rows are cut from the training ones.

    Raises:
        DataError: names the file, what it should hold and what it does.
    """
    train_images, train_labels = _idx_pair(options, folder, "train")
    test_images, test_labels = _idx_pair(options, folder, "t10k")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise DataError(
            f"{options.path}: training images have {_by(train_images.shape[1:])} pixels, "
            f"test images {_by(test_images.shape[1:])}"
        )
    shape = Shape(
        row={"image": (1, *train_images.shape[1:]), "label": ()},
        classes=int(max(train_labels.max(), test_labels.max())) + 1,
    )
    train, test = (
        ByteImages(train_images[:, None], train_labels),
        ByteImages(test_images[:, None], test_labels),
    )
    splits = byte_splits(train, test, options, shape)
    return normalized(splits, options.normalize, options.path)


def _idx_pair(options: IDXFiles, folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """One part's images, uint8 (N, H, W), and labels, uint8 (N,)."""
    images, images_name = _idx(options.path, folder, f"{part}-images-idx3-ubyte", dims=3)
    labels, labels_name = _idx(options.path, folder, f"{part}-labels-idx1-ubyte", dims=1)
    if len(images) != len(labels):
        raise DataError(f"{images_name} has {len(images)} images, {labels_name} {len(labels)} labels")
    return images, labels


def _idx(path: str, folder: Path, stem: str, *, dims: int) -> tuple[np.ndarray, str]:
    """An IDX file of bytes, and its name for messages."""
    name = next((name for name in (stem, f"{stem}.gz") if (folder / path / name).is_file()), None)
    if name is None:
        raise DataError(f"{path}: no file {stem} and no {stem}.gz (looked in {folder / path})")
    name = f"{path}/{name}"
    data = read_bytes(name, folder)
    if name.endswith(".gz"):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{name}: damaged gzip file: {error}") from error
    magic = bytes([0, 0, 8, dims])
    if data[:4] != magic:
        raise DataError(f"{name}: starts with 0x{data[:4].hex()}, not IDX's 0x{magic.hex()}")
    start = 4 + 4 * dims
    if len(data) < start:
        raise DataError(f"{name}: ends in its header: {len(data)} of {start} bytes")
    sizes = [int(size) for size in np.frombuffer(data, ">u4", dims, offset=4)]
    expected = math.prod(sizes)
    if not expected:
        raise DataError(f"{name}: is empty: its dims are {_by(sizes)}")
    if len(data) - start != expected:
        raise DataError(
            f"{name}: the header says {_by(sizes)} = {expected} bytes, the file has {len(data) - start}"
        )
    return np.frombuffer(data, np.uint8, offset=start).reshape(sizes), name


def _by(sizes: Sequence[int]) -> str:
    return " × ".join(map(str, sizes))
