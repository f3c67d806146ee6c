"""Figures are what their names say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from harness import QUICK, Trained, in_workers, job, train_worker

from dlsys.train import meter
from dlsys.train.meter import Meter, SystemMeter
from dlsys.train.strategies.base import StepResult


def times(communication: dict[str, float]) -> dict[str, float]:
    made = Meter()
    for _ in range(4):
        made.add(StepResult({}, torch.zeros(())), 8, 0.01, 0.05)
    return made.take_times(communication)


@pytest.mark.parametrize(
    ("communication", "exposed"),
    [
        ({}, 0.0),
        ({"exposed_seconds": 0.03}, 0.03),
        ({"exposed_seconds": 9.0}, 0.04),
        ({"exposed_share": 0.25}, 0.01),
    ],
)
def test_the_parts_of_a_step_add_up(communication: dict[str, float], exposed: float) -> None:
    found = times(communication)
    assert found["perf/communication_seconds"] == pytest.approx(exposed)
    parts = [found[f"perf/{part}_seconds"] for part in ("data", "communication", "compute")]
    assert sum(parts) == pytest.approx(found["perf/step_seconds"]) == pytest.approx(0.05)


def test_a_workers_traffic_and_its_machines_are_two_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = SimpleNamespace(bytes_sent=0, bytes_recv=0)
    monkeypatch.setattr(psutil, "net_io_counters", lambda: SimpleNamespace(**vars(counted)))
    now = 100.0
    monkeypatch.setattr(meter.time, "monotonic", lambda: now)
    made = SystemMeter(3)
    counted.bytes_sent, counted.bytes_recv, now = 10**9, 5 * 10**8, 102.0
    found = made.take({"bytes": 1e6}, 0.02)
    assert found["system/rank3/machine_transmit_gbit"] == pytest.approx(4.0)
    assert found["system/rank3/machine_recv_gbit"] == pytest.approx(2.0)
    assert found["system/rank3/sent_gbit"] == pytest.approx(0.4)


@pytest.mark.slow
def test_ddp_computes_in_every_small_step(tmp_path: Path) -> None:
    told = job(QUICK, "resources.workers=2", "stop.steps=300", "tracking.log_every=10")
    found: Trained = in_workers(2, train_worker, told, str(tmp_path))[0]
    computing = found.points["perf/compute_seconds"]
    assert len(computing) >= 30
    assert min(computing.values()) > 0
    whole = found.points["perf/step_seconds"]
    assert all(found.points["perf/communication_seconds"][step] < whole[step] for step in whole)


@pytest.mark.slow
def test_what_a_worker_sends_is_what_its_gradients_weigh(tmp_path: Path) -> None:
    """Of softmax regression on digits: 64 × 10 + 10 numbers; a ring of two sends each once."""
    told = job(QUICK, "resources.workers=2", "strategy.name=ring", "stop.steps=40")
    found: Trained = in_workers(2, train_worker, told, str(tmp_path))[0]
    gbit, seconds = (found.points[name][1] for name in ("system/rank0/sent_gbit", "perf/step_seconds"))
    assert gbit * seconds == pytest.approx(8e-9 * 650 * 4, rel=0.01)
    assert found.points["perf/sent_bytes_per_step"][1] == pytest.approx(650 * 4, rel=0.01)
