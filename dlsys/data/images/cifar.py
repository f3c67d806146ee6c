"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), in the layouts of https://www.cs.toronto.edu/~kriz/cifar.html."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from dlsys.data.dataset import Splits
from dlsys.data.files import read_bytes
from dlsys.data.images.byte_images import ByteImages, byte_splits
from dlsys.data.images.normalize import normalized
from dlsys.errors import DataError
from dlsys.spec.data import CIFARFiles
from dlsys.spec.rows import Shape

_IMAGE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class _Labels:
    """One sort of labels that rows have.

    Attributes:
        field: its key in Python's files.
        classes: how many there are.
        text: the file with their names, a line each.
        key: that of their names in Python's file of names.
    """

    field: str
    classes: int
    text: str
    key: str


@dataclass(frozen=True)
class _Version:
    """One of the two sets of images.

    Attributes:
        train, test: its files, without the binary version's ending.
        labels: in the order of the bytes before a binary row's pixels, the ones asked for by default last.
        names: Python's file of names.
    """

    name: str
    train: tuple[str, ...]
    test: str
    labels: Mapping[str, _Labels]
    names: str


_TEN = _Version(
    "CIFAR-10",
    tuple(f"data_batch_{number}" for number in range(1, 6)),
    "test_batch",
    {"fine": _Labels("labels", 10, "batches.meta.txt", "label_names")},
    "batches.meta",
)
_HUNDRED = _Version(
    "CIFAR-100",
    ("train",),
    "test",
    {
        "coarse": _Labels("coarse_labels", 20, "coarse_label_names.txt", "coarse_label_names"),
        "fine": _Labels("fine_labels", 100, "fine_label_names.txt", "fine_label_names"),
    },
    "meta",
)


def cifar_files(options: CIFARFiles, folder: Path) -> Splits:
    """CIFAR's files: `image` float32 (3, 32, 32) in 0…1, `label` int64.

    A binary row is its label, of CIFAR-100 the coarse and then the fine one, a byte each, and 3,072 bytes of
    pixels: red, green and blue, row by row. Python's files are pickled mappings of the same; nothing but
    arrays, lists and text is made of them. Validation rows are cut from the training ones.

    Raises:
        DataError: names the file, what it should hold and what it does.
    """
    version, binary = _found(options.path, folder)
    if options.labels not in version.labels:
        raise DataError(
            f"{options.path}: {version.name} has no {options.labels} labels", hint="say labels: fine"
        )
    kind = version.labels[options.labels]

    def part(names: Sequence[str]) -> ByteImages:
        read = [
            _binary(f"{options.path}/{name}.bin", folder, version, options.labels)
            if binary
            else _pickled(f"{options.path}/{name}", folder, kind)
            for name in names
        ]
        images, labels = (np.concatenate(parts) for parts in zip(*read, strict=True))
        return ByteImages(images.reshape(-1, *_IMAGE), labels)

    train, test = part(version.train), part((version.test,))
    names = _names(options.path, folder, kind, version.names, binary)
    shape = Shape(row={"image": _IMAGE, "label": ()}, classes=kind.classes)
    splits = byte_splits(train, test, options, shape)
    assert isinstance(splits.train, ByteImages)
    counts = np.bincount(splits.train.labels, minlength=kind.classes).tolist()
    splits = replace(splits, learnt={"target": {"name": "label", "classes": names, "counts": counts}})
    return normalized(splits, options.normalize, options.path)


def _found(path: str, folder: Path) -> tuple[_Version, bool]:
    """Which version lies in the folder, and whether as binary files."""
    firsts = {
        f"{version.train[0]}{ending}": (version, bool(ending))
        for ending in (".bin", "")
        for version in (_TEN, _HUNDRED)
    }
    for first, found in firsts.items():
        if (folder / path / first).is_file():
            return found
    raise DataError(
        f"{path}: no file {', '.join(firsts)} (looked in {folder / path})",
        hint="name the folder that an archive unpacks to, such as cifar-10-batches-bin",
    )


def _binary(path: str, folder: Path, version: _Version, wanted: str) -> tuple[np.ndarray, np.ndarray]:
    """A binary file's pixels, uint8 (N, 3072), and labels, uint8 (N,)."""
    data = read_bytes(path, folder)
    before = len(version.labels)
    size = before + _PIXELS
    rows, rest = divmod(len(data), size)
    if not data:
        raise DataError(f"{path}: is empty")
    if rest:
        raise DataError(
            f"{path}: {len(data)} bytes are not whole rows of {size} (labels {before}, pixels {_PIXELS}): "
            f"the one at byte {rows * size} has {rest}"
        )
    table = np.frombuffer(data, np.uint8).reshape(rows, size)
    for place, (name, kind) in enumerate(version.labels.items()):
        wrong = np.flatnonzero(table[:, place] >= kind.classes)
        if len(wrong):
            row = int(wrong[0])
            raise DataError(
                f"{path}: byte {row * size + place} is {table[row, place]}, and {name} labels of "
                f"{version.name} go from 0 to {kind.classes - 1}"
            )
    return table[:, before:], table[:, list(version.labels).index(wanted)]


def _pickled(path: str, folder: Path, kind: _Labels) -> tuple[np.ndarray, np.ndarray]:
    """A file of Python's: as `_binary`."""
    found = _unpickled(path, folder)
    pixels, labels = (_value(found, key, path) for key in ("data", kind.field))
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape[1:] != (_PIXELS,):
        told = f"{pixels.dtype} {list(pixels.shape)}" if isinstance(pixels, np.ndarray) else _kind(pixels)
        raise DataError(f"{path}: 'data' is {told}, and wanted is uint8 [rows, {_PIXELS}]")
    if not isinstance(labels, list) or len(labels) != len(pixels) or not labels:
        told = f"{len(labels)} long" if isinstance(labels, list) else _kind(labels)
        raise DataError(f"{path}: {kind.field!r} is {told}, and wanted is a list of {len(pixels)} numbers")
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < kind.classes:
            raise DataError(
                f"{path}: {kind.field!r} of row {row} is {label!r}, and they go from 0 to {kind.classes - 1}"
            )
    return pixels, np.array(labels, dtype=np.uint8)


def _names(path: str, folder: Path, kind: _Labels, pickled: str, binary: bool) -> list[str]:
    """The classes' names; their numbers where the file of names is not there."""
    file = f"{path}/{kind.text if binary else pickled}"
    if not (folder / file).is_file():
        return [str(number) for number in range(kind.classes)]
    if binary:
        names = read_bytes(file, folder).decode(errors="replace").split("\n")
        names = [name.strip() for name in names if name.strip()]
    else:
        told = _value(_unpickled(file, folder), kind.key, file)
        if not isinstance(told, list) or not all(isinstance(name, str | bytes) for name in told):
            raise DataError(f"{file}: {kind.key!r} is {_kind(told)}, and wanted is a list of names")
        names = [name.decode(errors="replace") if isinstance(name, bytes) else name for name in told]
    if len(names) != kind.classes or len(set(names)) != len(names):
        raise DataError(
            f"{file}: has {len(set(names))} different names, and there are {kind.classes} classes"
        )
    return names


class _Plain(pickle.Unpickler):
    """Makes arrays of numpy's and what pickle makes by itself. A name of anything else is refused, because
    who writes a pickle may have it call what he likes."""

    # What numpy's own arrays are made anew with; it has had two homes.
    _RECONSTRUCT = np.empty(0).__reduce__()[0]
    _KNOWN: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._KNOWN:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which no file of CIFAR's does")
        return self._KNOWN[module, name]


def _unpickled(path: str, folder: Path) -> Mapping[Any, Any]:
    data = read_bytes(path, folder)
    try:
        # Python 2 wrote them, whose text is bytes.
        found = _Plain(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle raises almost anything
        raise DataError(f"{path}: no pickle of CIFAR's: {error or type(error).__name__}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds {_kind(found)}, and wanted is a mapping")
    return found


def _value(found: Mapping[Any, Any], key: str, path: str) -> Any:
    for spelled in (key, key.encode()):
        if spelled in found:
            return found[spelled]
    told = ", ".join(
        name.decode(errors="replace") if isinstance(name, bytes) else str(name) for name in found
    )
    raise DataError(f"{path}: has no {key!r}: there are {told or 'none'}")


def _kind(value: Any) -> str:
    return f"a {type(value).__name__}"
