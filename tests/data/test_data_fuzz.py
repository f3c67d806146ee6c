"""Whatever bytes a file holds, reading it gives rows or a DataError, and nothing else."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import pickle
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dlsys.data import Splits, load
from dlsys.data.features.columns import Column
from dlsys.data.features.csv_text import read_csv
from dlsys.data.features.files import csv_file
from dlsys.data.images.cifar import cifar_files
from dlsys.data.images.idx import idx_files
from dlsys.data.images.image_folder import image_folder
from dlsys.data.images.mask_folder import mask_folder
from dlsys.data.scans.kitti import semantic_kitti
from dlsys.data.text.text_file import text_file
from dlsys.data.volumes.nifti import nifti
from dlsys.errors import DataError
from dlsys.spec.data import (
    COCO,
    CIFARFiles,
    CSVFile,
    IDXFiles,
    ImageFolder,
    MaskFolder,
    Nifti,
    SemanticKITTI,
    TextFile,
)

quick = settings(max_examples=60, deadline=None)


def use(splits: Splits) -> None:
    for part in (splits.train, splits.valid):
        for tensor in part.batch(np.arange(len(part))).values():
            assert tensor.isfinite().all()


@quick
@given(
    data=st.binary(max_size=200) | st.text("ab\r\n\0é", max_size=200).map(str.encode),
    encoding=st.sampled_from(
        ["utf-8", "utf-16", "utf-7", "unicode_escape", "punycode", "idna", "rot13", "\0"]
    ),
    window=st.integers(1, 5),
)
def test_text(data: bytes, encoding: str, window: int) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        Path(folder, "a").write_bytes(data)
        use(text_file(TextFile(source="text", path="a", encoding=encoding, window=window), Path(folder)))


cells = st.sampled_from(
    ["1", "-2.5", "x", "", "nan", "-nan", "inf", "1e308", "-1e308", '"', '"a"', "1_0", "\0", "é"]
)
rows = st.lists(st.lists(cells, min_size=2, max_size=2).map(",".join), max_size=12)


@quick
@given(
    data=st.binary(max_size=200).map(lambda data: b"x,y\n" + data)
    | rows.map(lambda lines: "\n".join(["x,y", *lines]).encode()),
    task=st.sampled_from(["classification", "regression"]),
    missing=st.sampled_from(["error", "mean", "drop"]),
    delimiter=st.sampled_from([",", "\n", '"', "\0", "é"]),
)
def test_csv(data: bytes, task: str, missing: str, delimiter: str) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        Path(folder, "a").write_bytes(data)
        options = CSVFile(source="csv", path="a", target="y", task=task, missing=missing, delimiter=delimiter)
        use(csv_file(options, Path(folder)))


size = st.sampled_from([0, 1, 2, 3, 2**31, 2**32 - 1])
idx = st.builds(
    lambda magic, sizes, body: (
        struct.pack(">I", magic) + b"".join(struct.pack(">I", s) for s in sizes) + body
    ),
    st.sampled_from([0x801, 0x803, 0xD03]),
    st.lists(size, max_size=3),
    st.binary(max_size=30),
)


@quick
@given(
    images=st.binary(max_size=40) | idx,
    labels=st.binary(max_size=40) | idx,
    suffix=st.sampled_from(["", ".gz"]),
)
def test_idx(images: bytes, labels: bytes, suffix: str) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        for part in ("train", "t10k"):
            Path(folder, f"{part}-images-idx3-ubyte{suffix}").write_bytes(images)
            Path(folder, f"{part}-labels-idx1-ubyte{suffix}").write_bytes(labels)
        use(idx_files(IDXFiles(source="idx", path="."), Path(folder)))


pickled = st.builds(
    lambda protocol, keys, pixels, labels: pickle.dumps(
        dict(zip(keys, (pixels, labels), strict=True)), protocol=protocol
    ),
    st.integers(0, 5),
    st.sampled_from([("data", "labels"), (b"data", b"labels"), ("data", "fine_labels")]),
    st.sampled_from(
        [np.zeros((2, 3072), np.uint8), np.zeros((2, 9), np.uint8), np.zeros((2, 3072)), np.uint8(1), [1, 2]]
    ),
    st.lists(st.integers(-1, 11) | st.none(), max_size=2),
)


@quick
@given(
    data=st.binary(max_size=40)
    | pickled
    | st.tuples(pickled, st.integers(0, 400)).map(lambda found: found[0][: -found[1]])
    | st.integers(0, 3).map(lambda rows: bytes(rows * 3073)),
    ending=st.sampled_from(["", ".bin"]),
)
def test_cifar(data: bytes, ending: str) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        for name in (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"):
            Path(folder, f"{name}{ending}").write_bytes(data)
        use(cifar_files(CIFARFiles(source="cifar", path="."), Path(folder)))


heads = st.sampled_from(
    [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM", b"GIF89a", b"P6\n2 2\n255\n", b"II*\0"]
)


@quick
@given(data=st.tuples(heads, st.binary(max_size=60)).map(b"".join))
def test_images(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        for name in "ab":
            Path(folder, name).mkdir()
            Path(folder, name, "0.png").write_bytes(data)
        use(image_folder(ImageFolder(source="image-folder", path="."), Path(folder)))


# Values of annotations, right ones among them, in the places where the format has some.
numbers = st.sampled_from(
    [0, 1, 2, -1, 0.5, 1e300, True, None, "a", [], {}, [1, 1, 2, 2], [[1, 1, 3, 1, 3, 3]]]
)
annotation = st.fixed_dictionaries(
    {"id": numbers, "image_id": st.just(1) | numbers, "category_id": st.just(1) | numbers},
    optional={
        "bbox": st.just([1, 1, 2, 2]) | st.lists(numbers, max_size=5),
        "segmentation": numbers | st.just({"counts": [5, 3, 8], "size": [4, 4]}),
        "iscrowd": numbers,
        "area": numbers,
    },
)


@quick
@given(
    annotations=st.lists(annotation, max_size=3) | numbers,
    image=st.fixed_dictionaries({"id": st.just(1) | numbers, "file_name": st.just("0.png") | numbers}),
    sides=st.dictionaries(st.sampled_from(["width", "height"]), st.just(4) | numbers),
)
def test_annotations(annotations: Any, image: dict[str, Any], sides: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        Image.new("RGB", (4, 4)).save(Path(folder, "0.png"))
        Image.new("RGB", (4, 4)).save(Path(folder, "1.png"))
        told = {
            "images": [{**image, **sides}, {"id": 7, "file_name": "1.png"}],
            "categories": [{"id": 1, "name": "thing"}],
            "annotations": annotations,
        }
        Path(folder, "a.json").write_text(json.dumps(told))
        options = COCO(source="coco", annotations="a.json", images=".", size=16, test=0, wanted="instances")
        use(load(options, Path(folder)))


@quick
@given(data=st.tuples(heads, st.binary(max_size=60)).map(b"".join))
def test_masks(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        for part in ("images", "masks"):
            Path(folder, part).mkdir()
            for number in range(2):
                Path(folder, part, f"{number}.png").write_bytes(data)
        options = {"source": "mask-folder", "path": ".", "test": 0.0}
        use(mask_folder(MaskFolder.model_validate(options), Path(folder)))


nifti_heads = st.sampled_from([b"", b"\x5c\x01\0\0", b"\x1f\x8b\x08"])


@quick
@given(data=st.tuples(nifti_heads, st.binary(max_size=400)).map(b"".join), zipped=st.booleans())
def test_volumes(data: bytes, zipped: bool) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        for part in ("images", "labels"):
            Path(folder, part).mkdir()
            Path(folder, part, "0.nii" + ".gz" * zipped).write_bytes(data)
        options = {"source": "nifti", "path": ".", "classes": ["a", "b"]}
        use(nifti(Nifti.model_validate(options), Path(folder)))


@quick
@given(points=st.binary(max_size=80), labels=st.binary(max_size=20))
def test_scans_of_kitti(points: bytes, labels: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        for part, ending, data in (("velodyne", "bin", points), ("labels", "label", labels)):
            base = Path(folder, "sequences", "08", part)
            base.mkdir(parents=True)
            (base / f"0.{ending}").write_bytes(data)
        options = {"source": "semantic-kitti", "path": ".", "train_drives": ["08"]}
        use(semantic_kitti(SemanticKITTI.model_validate(options), Path(folder)))


text = st.lists(
    st.sampled_from(["a", "b c", '"', '""', ",", "\n", "\r\n", "\r", ";", " ", "é", '"x,y"', '"p\nq"', "1"]),
    max_size=30,
).map("".join)


def python_reads(content: str, delimiter: str) -> list[list[str]] | None:
    """The rows below the header as Python's own reader has them; None where they are no table."""
    try:
        reader = csv.reader(io.StringIO(content, newline=""), delimiter=delimiter, strict=True)
        header, *rows = [row for row in reader if row]
    except (csv.Error, ValueError):
        return None
    if any(len(row) != len(header) for row in rows):
        return None
    return [[cell.strip() for cell in row] for row in rows]


@settings(max_examples=400, deadline=None)
@given(
    content=text.map(lambda text: "h\n" + text) | text.map(lambda text: "h,i\n" + text) | text,
    delimiter=st.sampled_from([",", ";", "é"]),
    spilled=st.booleans(),
)
def test_arrow_reads_what_python_reads(content: str, delimiter: str, spilled: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "a").write_bytes(content.encode())
        expected = python_reads(content, delimiter)
        try:
            cells = read_csv("a", Path(folder), delimiter, Path(folder, "text") if spilled else None)
        except DataError:
            assert expected is None
            return
        columns = [Column("x", column, cells.at, loose=cells.loose).cells for column in cells.columns]
        found = [list(row) for row in zip(*(column.to_pylist() for column in columns), strict=True)]
        assert found == expected
        for row in range(len(cells)):
            line = int(cells.at(row).rpartition(":")[2])
            assert 1 < line <= len(content.splitlines())
