"""Tables of a user's function: Ray's, and those that are left where they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from harness import QUICK, job, with_workers

from dlsys.data.own import rows as own_rows
from dlsys.data.own import tables
from dlsys.data.own.source import own_source
from dlsys.errors import DataError
from dlsys.spec.data.own import OwnSource

ROWS = 90


def table(rows: int = ROWS) -> pa.Table:
    images = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4) / rows
    features = pa.FixedSizeListArray.from_arrays(pa.array(images.reshape(-1)), 4)
    return pa.table({"features": features, "label": np.arange(rows) % 3})


class Blocks:
    """As much of a Ray data set as is read of one: blocks in order, if the order is asked for."""

    def __init__(self) -> None:
        options = SimpleNamespace(preserve_order=False)
        self.context = SimpleNamespace(execution_options=options, enable_progress_bars=True)

    def iter_batches(self, *, batch_size: None, batch_format: str) -> Iterator[pa.Table]:
        assert batch_format == "pyarrow"
        blocks = [table().slice(start, 30) for start in (0, 30, 60)]
        yield from blocks if self.context.execution_options.preserve_order else reversed(blocks)


Blocks.__module__ = "ray.data.dataset"


def blocks() -> Any:
    return Blocks()


def drawn(same: bool) -> dict[str, torch.Tensor]:
    """Without a seed of its own, but for the classes if they are to be the `same`."""
    numbers = np.random.default_rng()
    labels = np.arange(ROWS) % 3 if same else numbers.integers(0, 3, ROWS)
    return {
        "features": torch.from_numpy(numbers.random((ROWS, 4), np.float32)),
        "label": torch.from_numpy(labels),
    }


@pytest.mark.parametrize("large", [False, True])
def test_blocks_are_rows_in_their_order(large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tables, "_free_cpus", lambda: 1.0)
    if large:
        monkeypatch.setattr(own_rows, "_LARGE", 0)
    options = OwnSource.model_validate({"source": f"{__name__}:blocks", "classes": 3, "test": 0})
    splits = own_source(options, tmp_path)
    every = torch.cat([part.batch(np.arange(len(part)))["features"] for part in (splits.train, splits.valid)])
    expected = torch.from_numpy(np.stack(table()["features"].to_numpy()))
    assert torch.equal(every[every[:, 0].argsort()], expected)
    assert not [*tmp_path.rglob("*.ray")], "its file has no name"
    batch = splits.train.batch(np.array([5, 0, 5]))
    assert torch.equal(batch["features"][0], batch["features"][2])
    assert torch.equal(batch["label"], (batch["features"][:, 0] * ROWS / 4).round().long() % 3)


def test_a_mapped_table_is_that_of_ray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tables, "_free_cpus", lambda: 1.0)
    assert tables.as_arrow(blocks()).equals(table())


def test_blocks_that_nobody_can_compute_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "_free_cpus", lambda: 0.5)
    with pytest.raises(DataError, match="by CPUs that are free, and workers have taken all"):
        tables.as_arrow(blocks())


MINE = (
    "workload=torch.nn:Linear",
    "model={in_features: 4, out_features: 3}",
    "stop.steps=2",
    "batch_size=12",
)


def test_workers_with_other_rows_are_told(tmp_path: Path) -> None:
    two = ("resources.workers=2", "strategy.name=ddp")
    source = f"source: '{__name__}:drawn', classes: 3"
    text = (*MINE, *two, f"data={{{source}, same: false}}")
    with pytest.raises(AssertionError, match=r"do not have the same rows; this one \(rank 1\) has"):
        with_workers(job(QUICK, *text), tmp_path / "other")
    # What is drawn anew at each look, such as crops, is no reason.
    found = with_workers(job(QUICK, *MINE, *two, f"data={{{source}, same: true}}"), tmp_path / "same")
    assert found.result.position.step == 2
