"""What the terminal shows of a sweep while it goes on, and `dlsys sweep report`."""

from __future__ import annotations

import sys
from io import StringIO
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from synthetic import direct, train

from dlsys.cli import live, sweep
from dlsys.errors import UsageError
from dlsys.jobs.sweep import ledger_of, look, prepare
from dlsys.jobs.sweep_report import keep_report, line
from dlsys.paths import RunPaths
from dlsys.spec.load import LoadedSweep, load_any
from dlsys.tune.axes import short
from dlsys.tune.director import Director
from dlsys.tune.ledger import Ledger
from dlsys.tune.report import write_report


def shown(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def plain() -> Console:
    return Console(file=StringIO(), width=100)


def test_rungs_runners_and_the_best(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    director = train(direct(tmp_path / "ledger"), monkeypatch, orders=5)
    console = plain()
    console.print(live.view(director, 83.0))
    lines = [line.split() for line in shown(console).splitlines()]
    first = next(line for line in lines if line[:1] == ["1"])
    assert int(first[1]) == sum(report.epoch == 1 for report in director.history)
    assert ["9", "0", "–", "–"] in lines
    running = next(line for line in lines if line[:1] == ["running"])
    assert len(director.running) == 1
    assert running[1:3] == ["trial", str(next(iter(director.running)))]
    best = director.best
    assert best is not None
    assert f"{best.value:.4g}, trial {best.number} after" in shown(console)
    assert f"optimizer.lr={best.settings['optimizer.lr']:.4g}" in " ".join(shown(console).split())
    assert f"{len(director.trials)} of 30 begun" in shown(console)
    assert "1 min 23 s" in shown(console)


def test_one_trial_is_the_best_wherever_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while one that was stopped early has a better last value."""
    director = train(direct(tmp_path / "ledger"), monkeypatch, orders=40)
    done = next(trial for trial in director.trials.values() if trial.status == "done")
    early = next(trial for trial in director.trials.values() if trial.status != "done" and trial.value)
    assert done.value is not None
    sign = 1 if director.sweep.mode == "max" else -1
    early.reports[-1] = (early.reports[-1][0], done.value + sign)
    best = director.best
    assert best is not None
    assert best.status == "done"
    named = f"trial {best.number}"
    console = plain()
    console.print(live.view(director, 83.0))
    assert f"{best.value:.4g}, {named} after" in shown(console)
    assert f"best {best.value:.4g} ({named})" in line(director, early, 1, 0.5)
    page = write_report(director, tmp_path, run="x", status="running").read_text()
    assert f"<b>{short(best.value)}</b>, of {named} after" in page


def test_before_the_first_report(tmp_path: Path) -> None:
    director = direct(tmp_path / "ledger")
    director.next()
    console = plain()
    console.print(live.view(director, 0.0))
    assert "none yet" in shown(console)
    assert "1 of 30 begun" in shown(console)


def test_it_is_drawn_now_and_then_and_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    now = 100.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    monkeypatch.setattr(live, "view", lambda director, seconds: drawn.append(len(director.trials)) or "")
    director = direct(tmp_path / "ledger")
    with live.LiveSweep(Console(file=StringIO(), force_terminal=True)) as table:
        for _ in range(100):
            now += 0.01
            table.update(director)
        assert 3 <= len(drawn) <= 5, "four times a second"
        director.next()
        table.update(director)
        assert drawn[-1] == 0
    assert drawn[-1] == 1, "the end is not missed"


@pytest.fixture
def run(root: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    """A sweep of the ready file, with a few reports in its ledger."""
    loaded = load_any(root / "tune" / "lenet5_asha.yaml", ("trials=12",))
    assert isinstance(loaded, LoadedSweep)
    paths = prepare(loaded)
    ledger = Ledger(ledger_of(paths))
    train(Director(loaded.sweep, loaded.job.job, ledger), monkeypatch, orders=15)
    ledger.close()
    return paths


def test_a_report_at_any_time(run: RunPaths, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = ledger_of(run).read_bytes()
    sweep.report_anew(run.id[:10])
    assert capsys.readouterr().out.strip() == str(run.artifacts / "report.html")
    sweep.report_anew(run.id[:10], tmp_path / "else" / "where")
    page = (tmp_path / "else" / "where" / "report.html").read_text()
    assert run.id in page
    assert "running ·" in page
    assert ledger_of(run).read_bytes() == before


def test_a_report_that_cannot_be_written(run: RunPaths, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="no report can be written there"):
        sweep.report_anew(run.id, tmp_path / "file" / "below")


def test_no_report_fails_a_sweep(run: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    kept = keep_report(run, look(run), "KILLED", notes.append)
    assert kept == run.artifacts / "report.html"
    assert "killed ·" in kept.read_text()
    monkeypatch.setitem(sys.modules, "dlsys.tune.report", ModuleType("broken"))
    assert keep_report(run, look(run), "FINISHED", notes.append) is None
    (note,) = notes
    assert f"dlsys sweep report {run.id}" in note
