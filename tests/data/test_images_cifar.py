from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data import Splits
from dlsys.data.images.cifar import cifar_files
from dlsys.errors import DataError
from dlsys.spec.data import CIFARFiles

TEN = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# A row by hand: green is 1, but for its second pixel in the first line; red and blue are 0 and 255.
ROW = bytes(1024) + b"\x01\x07" + b"\x01" * 1022 + b"\xff" * 1024


def read(folder: Path, **options: object) -> Splits:
    return cifar_files(CIFARFiles(source="cifar", path=".", **options), folder)


def every(splits: Splits) -> list[tuple[int, bytes]]:
    """Label and pixels of each training and validation row, sorted."""
    batches = [part.batch(np.arange(len(part))) for part in (splits.train, splits.valid)]
    return sorted(
        (int(label), (image * 255).round().to(torch.uint8).numpy().tobytes())
        for batch in batches
        for image, label in zip(batch["image"], batch["label"], strict=True)
    )


def ten(folder: Path) -> None:
    """CIFAR-10's binary version: four rows a file, each with its file's number in its last byte."""
    for number, name in enumerate(TEN):
        rows = [bytes([(4 * number + row) % 10]) + ROW[:-1] + bytes([number]) for row in range(4)]
        (folder / f"{name}.bin").write_bytes(b"".join(rows))
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")


def hundred(folder: Path) -> None:
    for name, rows in (("train", 200), ("test", 10)):
        data = b"".join(bytes([row % 20, row % 100]) + ROW for row in range(rows))
        (folder / f"{name}.bin").write_bytes(data)
    (folder / "fine_label_names.txt").write_text("".join(f"fine {number}\n" for number in range(100)))
    (folder / "coarse_label_names.txt").write_text("".join(f"coarse {number}\n" for number in range(20)))


def as_python_2(pixels: bytes, labels: list[int], field: bytes) -> bytes:
    """A pickle as the archives hold it: protocol 2, written by Python 2, whose strings are bytes."""

    def text(value: bytes) -> bytes:  # SHORT_BINSTRING, BINSTRING
        return (
            b"U" + bytes([len(value)]) + value
            if len(value) < 256
            else b"T" + struct.pack("<i", len(value)) + value
        )

    rows = len(labels)
    shape = b"K" + bytes([rows]) + b"M" + struct.pack("<H", 3072) + b"\x86"
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNN"
    kind += b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    array = empty + b"(K\x01" + shape + kind + b"\x89" + text(pixels) + b"tb"
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(field) + numbers + b"u."


def test_every_byte_of_the_binary_version_arrives(tmp_path: Path) -> None:
    ten(tmp_path)
    splits = read(tmp_path, valid=0.2)
    assert splits.shape.row == {"image": (3, 32, 32), "label": ()}
    assert (len(splits.train), len(splits.valid), len(splits.test)) == (16, 4, 4)
    assert splits.learnt["target"]["classes"] == NAMES
    assert sum(splits.learnt["target"]["counts"]) == 16
    expected = sorted(
        ((4 * number + row) % 10, ROW[:-1] + bytes([number])) for number in range(5) for row in range(4)
    )
    assert every(splits) == expected
    image = splits.test.batch(np.array([2]))["image"][0]
    assert image[:, 0, :2].mul(255).round().tolist() == [[0, 0], [1, 7], [255, 255]]
    assert round(float(image[2, 31, 31]) * 255) == 5, "the test file's own last byte"


@pytest.mark.parametrize(("labels", "classes"), [("fine", 100), ("coarse", 20)])
def test_labels_of_the_hundred(labels: str, classes: int, tmp_path: Path) -> None:
    hundred(tmp_path)
    splits = read(tmp_path, labels=labels)
    assert splits.shape.classes == classes
    assert splits.learnt["target"]["classes"] == [f"{labels} {number}" for number in range(classes)]
    assert [label for label, _ in every(splits)] == sorted(row % classes for row in range(200))
    assert splits.test.batch(np.arange(10))["label"].tolist() == list(range(10))
    assert {pixels for _, pixels in every(splits)} == {ROW}


@pytest.mark.parametrize("protocol", [2, 4])
def test_pythons_version_holds_the_same(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "binary").mkdir()
    ten(tmp_path / "binary")
    for name in TEN:
        data = (tmp_path / "binary" / f"{name}.bin").read_bytes()
        rows = [data[start : start + 3073] for start in range(0, len(data), 3073)]
        labels, pixels = [row[0] for row in rows], b"".join(row[1:] for row in rows)
        array = np.frombuffer(pixels, np.uint8).reshape(-1, 3072)
        written = (
            as_python_2(pixels, labels, b"labels")
            if protocol == 2
            else pickle.dumps({"data": array, "labels": labels}, protocol)
        )
        (tmp_path / name).write_bytes(written)
    named = {b"label_names": [name.encode() for name in NAMES]}
    (tmp_path / "batches.meta").write_bytes(pickle.dumps(named, 3))
    python, binary = read(tmp_path), read(tmp_path / "binary")
    assert every(python) == every(binary)
    assert python.learnt == binary.learnt


def test_classes_have_numbers_where_nobody_names_them(tmp_path: Path) -> None:
    ten(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    assert read(tmp_path).learnt["target"]["classes"] == list("0123456789")


def change(name: str, how) -> object:
    def do(folder: Path) -> None:
        path = folder / name
        path.write_bytes(how(path.read_bytes()))

    return do


@pytest.mark.parametrize(
    ("break_it", "expected"),
    [
        (
            lambda folder: (folder / "data_batch_3.bin").unlink(),
            "./data_batch_3.bin: no such file (looked for {folder}/./data_batch_3.bin)",
        ),
        (change("test_batch.bin", lambda d: b""), "./test_batch.bin: is empty"),
        (
            change("data_batch_2.bin", lambda d: d[:-7]),
            "./data_batch_2.bin: 12285 bytes are not whole rows of 3073 (labels 1, pixels 3072): the one at "
            "byte 9219 has 3066",
        ),
        (
            change("data_batch_2.bin", lambda d: d[:3073] + b"\x0a" + d[3074:]),
            "./data_batch_2.bin: byte 3073 is 10, and fine labels of CIFAR-10 go from 0 to 9",
        ),
        (
            change("batches.meta.txt", lambda d: d + b"another\n"),
            "./batches.meta.txt: has 11 different names, and there are 10 classes",
        ),
        (
            lambda folder: (folder / "data_batch_1.bin").rename(folder / "data.bin"),
            ".: no file data_batch_1.bin, train.bin, data_batch_1, train (looked in {folder})",
        ),
    ],
)
def test_errors_say_expected_and_found(break_it, expected: str, tmp_path: Path) -> None:
    ten(tmp_path)
    break_it(tmp_path)
    with pytest.raises(DataError) as error:
        read(tmp_path)
    assert str(error.value).replace("/./", "/") == expected.format(folder=tmp_path).replace("/./", "/")


def test_the_ten_have_no_coarse_labels(tmp_path: Path) -> None:
    ten(tmp_path)
    with pytest.raises(DataError, match=r"^\.: CIFAR-10 has no coarse labels$"):
        read(tmp_path, labels="coarse")


class Call:
    """What somebody else's pickle may be: it calls a function when it is read."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "called")

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (self.path,)


PIXELS = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (Call, "no pickle of CIFAR's: it names posix.mkdir, which no file of CIFAR's does"),
        (lambda folder: [1], "holds a list, and wanted is a mapping"),
        (lambda folder: {"data": PIXELS}, "has no 'labels': there are data"),
        (
            lambda folder: {"data": PIXELS.astype(float), "labels": [1, 2]},
            "'data' is float64 [2, 3072], and wanted is uint8 [rows, 3072]",
        ),
        (
            lambda folder: {"data": PIXELS, "labels": [1]},
            "'labels' is 1 long, and wanted is a list of 2 numbers",
        ),
        (
            lambda folder: {"data": PIXELS, "labels": [1, 10]},
            "'labels' of row 1 is 10, and they go from 0 to 9",
        ),
    ],
)
def test_what_is_pickled_is_looked_at_and_not_run(content, said: str, tmp_path: Path) -> None:
    for name in TEN:
        (tmp_path / name).write_bytes(pickle.dumps(content(tmp_path)))
    with pytest.raises(DataError) as error:
        read(tmp_path)
    assert str(error.value) == f"./data_batch_1: {said}"
    assert not (tmp_path / "called").exists()
