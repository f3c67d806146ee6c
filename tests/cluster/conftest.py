"""A fake Slurm, and the storage of its clusters."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import HERE, FakeSlurm

from dlsys.cluster import slurm, slurm_script


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSlurm]:
    fake = FakeSlurm(tmp_path / "slurm")
    monkeypatch.delenv("RAY_CLIENT_MODE", raising=False)  # a Ray that was imported leaves it
    monkeypatch.setenv("FAKE_SLURM", str(fake.folder))
    monkeypatch.setenv("PATH", f"{fake.bin}:/usr/bin:/bin")
    monkeypatch.setattr(slurm, "_LOOK", 0.02)
    monkeypatch.setattr(slurm_script, "DESK", (sys.executable, "-P", str(HERE / "stub_desk.py")))
    yield fake
    fake.end()


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    return tmp_path / "shared"
