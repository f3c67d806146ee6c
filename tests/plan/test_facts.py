"""Facts are remembered by what decides them: the code, the options, the data."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import QUICK, job

from dlsys.plan.facts import Facts, facts, key

NET = """\
from own_layers import Layer
class Net(Layer): ...
"""


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_second_look_measures_nothing(tmp_path: Path) -> None:
    asked: list[Any] = []

    def measured(job: Any, folder: Path) -> Facts:
        asked.append(job)
        return Facts(1, 2, 3, 4)

    assert facts(job(), tmp_path, measured) == facts(job(), tmp_path, measured) == Facts(1, 2, 3, 4)
    assert len(asked) == 1


def test_a_damaged_memory_is_measured_again(tmp_path: Path, own_cache: Path) -> None:
    facts(job(), tmp_path, lambda *told: Facts(1, 2, 3, 4))
    (file,) = own_cache.rglob("*.json")
    for text in ("", "{}", "[1]", '{"parameters": 1}'):
        file.write_text(text)
        assert facts(job(), tmp_path, lambda *told: Facts(5, 6, 7, 8)) == Facts(5, 6, 7, 8)


def test_a_folder_that_cannot_be_written_to_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert facts(job(), tmp_path, lambda *told: Facts(1, 2, 3, 4)) == Facts(1, 2, 3, 4)


def test_the_key_has_all_that_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "own_net.py").write_text(NET)
    (tmp_path / "own_layers.py").write_text("class Layer: ...\n")

    def now(*changes: str) -> str:
        told = ("workload=own_net:Net", "data={source: csv, path: a.csv, target: y}", *changes)
        return key(job(QUICK, *told), tmp_path)

    seen = [now(), now("model.x=1"), now("data.valid=0.2")]
    (tmp_path / "a.csv").write_text("x,y,z\n1,2,3\n")
    seen.append(now())
    (tmp_path / "own_net.py").write_text(NET + "# changed")
    seen.append(now())
    (tmp_path / "own_layers.py").write_text("class Layer:\n    changed = True\n")
    seen.append(now())
    assert len(set(seen)) == len(seen)
    assert now() == seen[-1]
    assert now("stop.steps=99", "optimizer.lr=3", "resources.workers=2") == seen[-1], "these decide nothing"


def test_a_known_workload_is_shown_and_planned_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from dlsys.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'torch', 'ray', 'mlflow'} & set(sys.modules)))"
    )

    def run(*arguments: str) -> list[str]:
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True)
        return done.stdout.splitlines()

    first, second = (run("zoo", "show", "resnet-20") for _ in range(2))
    assert first[-1] == "['torch']"
    assert second[-1] == "[]"
    assert first[:-1] == second[:-1]
    assert any("269,434" in line for line in second)
    planned = run("plan", "vision/resnet", "model={preset: 20}")
    assert planned[-1] == "[]"
    assert any("269,434" in line for line in planned)


@pytest.mark.parametrize("workload", ["timm/resnet18", "densenet"])
def test_the_key_has_the_version_of_the_library_that_builds_it(
    workload: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = job(QUICK, f"workload={workload}", "model={}")
    now, version = key(found, tmp_path), importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda name: "0.1" if name == "timm" else version(name)
    )
    assert key(found, tmp_path) != now
