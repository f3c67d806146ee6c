"""`dlsys plan`: what it prints, for a sweep and for what is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from dlsys.cli.plan import plan
from dlsys.errors import UsageError

SWEEP = "tune/lenet5_asha"


def said(capsys: pytest.CaptureFixture[str], *overrides: str, **options: Any) -> dict[str, Any]:
    options = {"workers": 8, "seconds_per_epoch": None, "curves": None, "within": 0.01} | options
    plan(SWEEP, list(overrides), price_per_hour=options.pop("price_per_hour", None), as_json=True, **options)
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_json_has_the_files_own_scheduler_and_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, workers=4, price_per_hour=2.0, seconds_per_epoch=3600.0)
    assert (found["sweep"], found["trials"], found["workers"]) == ("lenet5-asha", 64, 4)
    own, others = found["own"], {row["scheduler"]: row for row in found["others"]}
    assert own == others["asha"], "the same scheduler on the same curves"
    assert list(others) == ["fifo", "successive-halving", "asha", "hyperband"]
    assert others["successive-halving"]["rungs"] == {"3": 64, "9": 21, "27": 7}
    assert others["fifo"]["epochs"] == 64 * 27
    for row in others.values():
        assert row["cost"] == round(4 * row["seconds"] / 3600 * 2, 2), "idle workers are paid too"
        assert 0 <= row["idle"] < 1
        assert row["to_target"] <= row["seconds"]
    assert others["fifo"]["seconds"] > 64 * 27 * 3600 / 4 * 0.5


def test_prices_and_room_come_from_a_clusters_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cluster.yaml"
    text = """
kind: cluster
name: priced
provider: local
currency: EUR
nodes:
  - {name: head, cpus: 0}
  - {name: small, cpus: 2, price: 1.0, count: 3}
  - {name: large, cpus: 8, price: 10.0}
"""
    file.write_text(text)
    found = said(capsys, "concurrent=auto", workers=None, cluster=str(file), seconds_per_epoch=3600.0)
    assert found["workers"] == 3 * 2 + 8
    assert found["currency"] == "EUR"
    dearest = max(1.0 / 2, 10.0 / 8)
    assert found["own"]["cost"] == pytest.approx(14 * found["own"]["seconds"] / 3600 * dearest, abs=0.01)
    file.write_text(text.replace(", price: 1.0", ""))
    with pytest.raises(UsageError, match="small has no price"):
        said(capsys, cluster=str(file))
    file.write_text(text.replace("cpus: 2", "cpus: 0").replace("cpus: 8", "cpus: 0"))
    with pytest.raises(UsageError, match="no group has room"):
        said(capsys, cluster=str(file))


@pytest.mark.parametrize(
    "scheduler", ["{name: median}", "{name: pbt, mutate: [optimizer.lr]}", "{name: fifo}"]
)
def test_every_scheduler_can_be_planned(scheduler: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, f"scheduler={scheduler}", "trials=20", workers=500)
    assert found["own"]["scheduler"] in scheduler
    assert found["own"]["rungs"]["27"] >= 1


def test_an_earlier_sweeps_curves_are_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ledger.jsonl"
    reports = [
        {"event": "report", "trial": trial, "epoch": epoch, "value": trial / 10, "seconds": 2 * epoch}
        for trial in range(4)
        for epoch in (1, 3)
    ]
    path.write_text("".join(json.dumps(report) + "\n" for report in reports))
    found = said(capsys, curves=path, workers=1)
    assert found["own"]["best"] == 0.3
    assert found["target"] == pytest.approx(0.29)
    # 8 seconds were 3 epochs; 64 trials go round the 4 that are known.
    fifo = found["others"][0]
    assert fifo["seconds"] == pytest.approx(64 * 27 * 8 / 3)
    faster = said(capsys, curves=path, workers=1, seconds_per_epoch=0.5)
    assert faster["others"][0]["seconds"] == pytest.approx(64 * 27 / 2)


def test_the_table_has_a_line_for_each_scheduler(capsys: pytest.CaptureFixture[str]) -> None:
    plan(
        SWEEP, [], workers=8, seconds_per_epoch=60, curves=None, within=0.01, price_per_hour=1, as_json=False
    )
    head, rungs, schedulers = capsys.readouterr().out.split("\n\n")
    assert head == "lenet5-asha: 64 trials, 8 at a time, on made-up curves"
    assert rungs.splitlines()[1].split() == ["3", "64"]
    titles, *lines = schedulers.splitlines()
    assert titles.startswith("SCHEDULER")
    assert titles.endswith("COST")
    names = ["asha (this file)", "fifo (random search)", "successive-halving", "hyperband"]
    assert [line.split("  ")[0] for line in lines] == names


def test_a_job_is_counted(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plan("quickstart", ["batch_size=32", "gradient.accumulate=2"], as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert found["parameters"] == 21_386
    assert found["step"]["rows"] == 32
    assert found["step"]["flops"] == 32 * found["row"]["step_flops"]
    assert found["step"]["activation_bytes_per_worker"] == 32 // 4 * found["row"]["activation_bytes"]
    plan("quickstart")
    assert f"{found['parameters']:,} parameters" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "kind"), [("rl/cartpole_ppo", "rl"), ("cluster/two_nodes", "cluster")])
def test_other_files_have_no_plan(name: str, kind: str) -> None:
    with pytest.raises(UsageError, match=f"is a kind: {kind} file, and there are plans only for") as caught:
        plan(name)
    assert caught.value.exit_code == 2


def test_a_job_that_does_not_count_epochs_has_no_plan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="the job stops otherwise"):
        said(capsys, "scheduler={name: fifo}", "overrides={stop: {steps: 100}, schedule: {name: constant}}")


def test_planning_imports_nothing_heavy(tmp_path: Path) -> None:
    code = """
import sys
from dlsys.cli.main import app
app(["plan", "tune/lenet5_asha", "--workers", "500"], standalone_mode=False)
heavy = ["torch", "ray", "mlflow", "numpy", "deepspeed", "sklearn", "pandas"]
print([name for name in heavy if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, timeout=120, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert "500 at a time" in done.stdout
