"""The spool: what was recorded is there once, whatever dies."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from dlsys.track.spool import Spool, records


def points(path: Path) -> list[tuple[str, int, float]]:
    return [(name, r["s"], v) for r, _ in records(path) for name, v in r.get("m", {}).items()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rank-0.jsonl"


def test_records_in_order_with_times(path: Path) -> None:
    spool = Spool(path)
    spool.metrics(1, {"train/loss": 0.5, "train/lr": 0.1})
    spool.note("half way")
    spool.metrics(2, {"train/loss": float("inf")})
    assert spool.close() == 0
    found = [record for record, _ in records(path)]
    assert [record.get("note") for record in found] == [None, "half way", None]
    assert points(path) == [("train/loss", 1, 0.5), ("train/lr", 1, 0.1), ("train/loss", 2, float("inf"))]
    assert all(record["t"] > 1.6e12 for record in found)


def test_steps_done_again_after_a_resume_stand_once(path: Path) -> None:
    for steps in (range(1, 8), range(4, 11)):
        spool = Spool(path)
        for step in steps:
            spool.metrics(step, {"train/loss": float(step)} | ({"valid/loss": 1.0} if step % 5 == 0 else {}))
        spool.close()
    assert [step for name, step, _ in points(path) if name == "train/loss"] == list(range(1, 11))
    assert [step for name, step, _ in points(path) if name == "valid/loss"] == [5, 10]


@pytest.mark.parametrize("keep", range(0, 40, 3))
def test_a_torn_last_line_is_cut_off(keep: int, path: Path) -> None:
    spool = Spool(path)
    spool.metrics(1, {"a": 1.0})
    spool.close()
    whole = path.read_bytes()
    path.write_bytes(whole + whole[: min(keep, len(whole) - 1)])
    again = Spool(path)
    again.metrics(2, {"a": 2.0})
    again.close()
    assert points(path) == [("a", 1, 1.0), ("a", 2, 2.0)]


def test_a_reader_sees_whole_records_only(path: Path) -> None:
    spool = Spool(path)
    spool.metrics(1, {"a": 1.0})
    (first, end), *_ = records(path)
    with open(path, "ab") as file:
        file.write(b'{"s":2,"m":{"a"')
    assert records(path, end) == []
    with open(path, "ab") as file:
        file.write(b":2.0}}\n")
    assert [record["s"] for record, _ in records(path, end)] == [2]
    assert first["s"] == 1
    spool.close()


def test_a_full_disk_stops_nobody_and_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(path)
    spool.metrics(1, {"a": 1.0})
    real, room = os.write, [5]

    def write(handle: int, data: bytes) -> int:
        if room[0] <= 0:
            raise OSError(28, "No space left on device")
        written = real(handle, data[: room[0]])
        room[0] -= written
        return written

    monkeypatch.setattr(os, "write", write)
    spool.metrics(2, {"a": 2.0})
    spool.metrics(3, {"a": 3.0})
    room[0] = 10**6
    spool.metrics(4, {"a": 4.0})
    assert spool.close() == 0
    assert points(path) == [("a", step, float(step)) for step in (1, 2, 3, 4)]


def test_what_never_fitted_is_counted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(path)

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    spool.metrics(1, {"a": 1.0})
    spool.note("x")
    assert spool.close() == 2


def test_garbage_between_records_is_passed_over(path: Path) -> None:
    path.write_text(
        '{"s":1,"t":1,"m":{"a":1}}\nnot json\n[1]\n' + json.dumps({"s": 2, "t": 1, "m": {"a": 2}}) + "\n"
    )
    assert [step for _, step, _ in points(path)] == [1, 2]
