"""Large tables are encoded once: by one process, anew when anything changes, and never half."""

from __future__ import annotations

import multiprocessing
import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from dlsys.data import load
from dlsys.data.features import files, kept
from dlsys.errors import DataError
from dlsys.spec.data import CSVFile

ROWS = 500


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(files, "LARGE", 0)
    write(tmp_path)
    return tmp_path


def write(folder: Path, factor: int = 1) -> None:
    lines = [f"{i * factor},{'abc'[i % 3]},{i % 2}" for i in range(ROWS)]
    (folder / "rows.csv").write_text("\n".join(["x,c,y", *lines]))


def read(folder: Path, **options: object) -> dict[str, torch.Tensor]:
    splits = load(CSVFile(source="csv", path="rows.csv", target="y", **options), folder)
    return splits.train.batch(np.arange(len(splits.train)))


def made(folder: Path) -> list[Path]:
    return sorted((folder / "cache" / "dlsys" / "tables").glob("*.arrow"))


def test_the_second_time_nothing_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = read(folder)
    monkeypatch.setattr(files, "read_csv", lambda *_: pytest.fail("it was read again"))
    again = read(folder)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert [path.suffix for path in (folder / "cache/dlsys/tables").iterdir() if path.is_dir()] == []
    monkeypatch.undo()


def test_what_changes_is_read_anew(folder: Path) -> None:
    read(folder)
    read(folder, prefetch=3)
    assert len(made(folder)) == 1, "what does not decide the rows"
    for options in ({"valid": 0.2}, {"split_seed": 1}, {"columns": ("x",)}):
        count = len(made(folder))
        read(folder, **options)
        assert len(made(folder)) == count + 1, options
    before = read(folder)["features"]
    (column,) = load(CSVFile(source="csv", path="rows.csv", target="y", columns=("x",)), folder).learnt[
        "columns"
    ]
    write(folder, factor=2)
    (other,) = load(CSVFile(source="csv", path="rows.csv", target="y", columns=("x",)), folder).learnt[
        "columns"
    ]
    assert other["mean"] == 2 * column["mean"]
    assert before.shape == read(folder)["features"].shape


def _read_in_a_process(folder: Path) -> None:
    files.LARGE = 0
    read_csv = files.read_csv

    def slow(*arguments: object, **options: object) -> object:
        (folder / f"read-by-{os.getpid()}").touch()
        time.sleep(0.5)
        return read_csv(*arguments, **options)  # type: ignore[arg-type]

    files.read_csv = slow  # type: ignore[assignment]
    read(folder)


def test_workers_that_start_together_read_once(folder: Path) -> None:
    workers = [
        multiprocessing.get_context("fork").Process(target=_read_in_a_process, args=(folder,))
        for _ in range(3)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(30)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(list(folder.glob("read-by-*"))) == 1
    assert len(made(folder)) == 1


def test_one_that_was_killed_leaves_nothing_in_the_way(folder: Path) -> None:
    read(folder)
    (place,) = made(folder)
    half = place.with_suffix(".making")
    place.unlink()
    half.mkdir()
    (half / "numbers").write_bytes(b"half")
    read(folder)
    assert made(folder) == [place]
    assert not half.exists()


def test_what_nobody_used_for_two_weeks_goes(folder: Path) -> None:
    read(folder)
    (old,) = made(folder)
    os.utime(old, (0, time.time() - 15 * 86400))
    read(folder, valid=0.3)
    assert old not in made(folder)
    (young,) = made(folder)
    os.utime(young, (0, time.time() - 13 * 86400))
    read(folder, valid=0.3)  # using it makes it young again
    assert time.time() - young.stat().st_mtime < 3600


def test_no_room_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept, "_write", full)
    with pytest.raises(DataError, match=r"rows\.csv: cannot be kept in .*: No space left on device") as found:
        read(folder)
    assert "XDG_CACHE_HOME" in str(found.value.hint)
    assert made(folder) == []
