from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data.text.pydoc import pydoc
from dlsys.data.text.text_file import text_file
from dlsys.data.text.windows import UNKNOWN
from dlsys.errors import DataError
from dlsys.spec.data import Pydoc, TextFile


def read(folder: Path, content: bytes, **options: object):
    (folder / "a.txt").write_bytes(content)
    return text_file(TextFile(source="text", path="a.txt", **options), folder)


def test_windows_continue_each_other_and_targets_are_shifted_by_one(tmp_path: Path) -> None:
    text = "".join(np.random.default_rng(0).choice(list("abcdé\n"), 1000))
    splits = read(tmp_path, text.encode(), window=9, valid=0.1, test=0.2)
    names = splits.shape.vocabulary
    start = 0
    for part, length in ((splits.train, 700), (splits.valid, 100), (splits.test, 200)):
        rows = part.batch(np.arange(len(part)))
        assert len(part) == (length - 1) // 9
        stream = "".join(names[i] for i in rows["tokens"].flatten())
        assert stream == text[start : start + len(part) * 9]
        targets = "".join(names[i] for i in rows["targets"].flatten())
        assert targets == text[start + 1 : start + 1 + len(part) * 9]
        start += length


def test_vocabulary_is_of_the_training_part(tmp_path: Path) -> None:
    splits = read(tmp_path, ("ba" * 40 + "xa" * 5 + "ya" * 5).encode(), window=4, valid=0.1, test=0.1)
    assert splits.shape.vocabulary == (UNKNOWN, "a", "b")
    assert splits.valid.batch(np.array([0]))["tokens"].tolist() == [[0, 1, 0, 1]]
    assert splits.train.batch(np.array([0]))["tokens"].tolist() == [[2, 1, 2, 1]]


def test_a_replacement_character_is_unknown(tmp_path: Path) -> None:
    splits = read(tmp_path, f"a{UNKNOWN}".encode() * 40, window=4)
    assert splits.shape.vocabulary == (UNKNOWN, "a")
    assert splits.train.batch(np.array([0]))["tokens"].tolist() == [[1, 0, 1, 0]]


def test_other_encodings(tmp_path: Path) -> None:
    text = "äöü€\r\n" * 40
    assert read(tmp_path, text.encode("utf-16"), window=5, encoding="utf-16").shape.vocabulary == (
        UNKNOWN,
        *sorted(set(text)),
    )


def test_pydoc_is_pythons_help() -> None:
    splits = pydoc(Pydoc(source="pydoc"), Path())
    names = splits.shape.vocabulary
    assert len(splits.train) * 64 > 350_000
    assert list(names[1:]) == sorted(names[1:])
    first = "".join(names[i] for i in splits.train.batch(np.array([0]))["tokens"][0])
    assert first.startswith('The "assert" statement')


def test_pydoc_limit() -> None:
    splits = pydoc(Pydoc(source="pydoc", limit=5000, window=10, test=0.0), Path())
    assert len(splits.train) == (4750 - 1) // 10
    assert len(splits.valid) == (250 - 1) // 10
    assert splits.test is None


def test_rows_are_copies(tmp_path: Path) -> None:
    train = read(tmp_path, b"abcd" * 50, window=4).train
    train.batch(np.array([0]))["tokens"].zero_()
    assert torch.equal(train.batch(np.array([0]))["tokens"], torch.tensor([[1, 2, 3, 4]]))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        text_file(TextFile(source="text", path="no.txt"), tmp_path)
    assert str(error.value) == f"no.txt: no such file (looked for {tmp_path / 'no.txt'})"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        text_file(TextFile(source="text", path="."), tmp_path)
    assert str(error.value) == ".: cannot be read: Is a directory"


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        (b"abc\xffdef", "utf-8", "a.txt: byte 3: 0xff is not utf-8 (invalid start byte)"),
        (b"ab\x80", "ascii", "a.txt: byte 2: 0x80 is not ascii (ordinal not in range(128))"),
        (b"abc", "utf-9", "a.txt: data.encoding: no text encoding 'utf-9'"),
        (b"abc", "hex", "a.txt: data.encoding: no text encoding 'hex'"),
    ],
)
def test_undecodable(tmp_path: Path, content: bytes, encoding: str, message: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, content, encoding=encoding)
    assert str(error.value) == message


@pytest.mark.parametrize("length", [0, 1, 32])
def test_too_short(tmp_path: Path, length: int) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, b"a" * length, window=10)
    assert str(error.value) == (
        f"a.txt: {length} characters are too few: 11 for validation and 11 for the test leave "
        f"{max(length - 22, 0)} to train on, and a row needs 11"
    )
    assert len(read(tmp_path, b"a" * 33, window=10).train) == 1
