"""`dlsys runs watch`, and the table of a run that goes on: what they read, what they show, when they end."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import psutil
import pytest
import typer
from rich.console import Console
from synthetic import train

from dlsys.cli import watch
from dlsys.errors import UsageError
from dlsys.jobs import progress, run
from dlsys.jobs.drawing import sparkline, view
from dlsys.jobs.progress import Progress
from dlsys.jobs.standing import Curve, Standing, fate
from dlsys.jobs.sweep import ledger_of, prepare
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.spec.load import Loaded, LoadedSweep, load_any
from dlsys.track.spool import Spool
from dlsys.tune.director import Director
from dlsys.tune.ledger import Ledger

ME = psutil.Process()


@pytest.fixture
def loaded(root: Path) -> Loaded:
    found = load_any(root / "jobs" / "quickstart.yaml")
    assert isinstance(found, Loaded)
    return found


def own(paths: RunPaths, **other: Any) -> None:
    """As a driver does that is this process."""
    told = {"fence": 1, "pid": os.getpid(), "created": ME.create_time(), "host": socket.gethostname()}
    write_json(paths.owner, {**told, "writer": None, **other})


@pytest.fixture
def going(loaded: Loaded) -> RunPaths:
    """A run that this process drives."""
    paths = run.prepare(loaded)
    own(paths)
    return paths


@pytest.fixture
def spool(going: RunPaths) -> Iterator[Spool]:
    made = Spool(going.spool / "rank-0.jsonl")
    yield made
    made.close()


def figures(epoch: float) -> dict[str, float]:
    return {"train/epoch": epoch, "train/loss": 1 / epoch, "perf/step_seconds": 0.5, "valid/accuracy": 0.7}


def in_turn(monkeypatch: pytest.MonkeyPatch, *acts: Callable[[], object]) -> None:
    """What happens to a run between two looks at it: in place of waiting."""
    left, now = list(acts), [0.0]

    def sleep(seconds: float) -> None:
        now[0] += 10
        if seconds == watch._PAUSE:
            left.pop(0)()

    monkeypatch.setattr(watch.time, "sleep", sleep)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])


class TestWatch:
    @pytest.mark.parametrize(("status", "code"), [("FINISHED", None), ("FAILED", 1), ("KILLED", 1)])
    def test_lines_until_it_ends(
        self,
        status: str,
        code: int | None,
        going: RunPaths,
        spool: Spool,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        in_turn(
            monkeypatch,
            lambda: spool.metrics(10, figures(1.0)),
            lambda: None,
            lambda: (
                spool.metrics(20, figures(2.0)),
                write_json(going.outcome, {"status": status, "cause": "why" if code else ""}),
            ),
        )
        if code:
            with pytest.raises(typer.Exit) as ended:
                watch.watch(None)
            assert ended.value.exit_code == code
        else:
            watch.watch(None)
        lines = capsys.readouterr().out.splitlines()
        assert [line.split()[1].strip(":") for line in lines] == ["RUNNING", "RUNNING", status]
        assert "epoch 1.0/10  step 10  loss 1  valid/accuracy 0.7  45 s left" in lines[1]
        assert "epoch 2.0/10  step 20  loss 0.5" in lines[2]
        assert (f"{status}: why" in lines[2]) is bool(code)

    def test_it_writes_nothing(self, going: RunPaths, spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
        spool.metrics(10, figures(1.0))
        home = going.root.parents[1]
        in_turn(monkeypatch, lambda: write_json(going.outcome, {"status": "FINISHED"}))

        def files() -> dict[Path, int]:
            return {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.is_file()}

        before = files()
        watch.watch(going.id[:12])
        assert {path: at for path, at in files().items() if path != going.outcome} == before

    def test_a_driver_that_died_without_a_word(
        self, going: RunPaths, capsys: pytest.CaptureFixture[str]
    ) -> None:
        own(going, created=ME.create_time() - 100)
        with pytest.raises(typer.Exit):
            watch.watch(going.id)
        assert f"dlsys runs sync {going.id}" in capsys.readouterr().err

    def test_the_newest_of_several(
        self, going: RunPaths, loaded: Loaded, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = RunPaths.create("later-20991130-120000-abcd")
        own(other)
        assert watch._found(None, None)[0] == other.id
        assert f"the newest; {going.id} goes on, too" in capsys.readouterr().err
        assert watch._found(going.id[:12], None)[0] == going.id

    def test_none_goes_on(self) -> None:
        with pytest.raises(UsageError, match="no run goes on"):
            watch.watch(None)

    def test_a_sweep(
        self, root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        sweep = load_any(root / "tune" / "lenet5_asha.yaml", ("trials=12",))
        assert isinstance(sweep, LoadedSweep)
        paths = prepare(sweep)
        own(paths)
        ledger = Ledger(ledger_of(paths))
        director = train(Director(sweep.sweep, sweep.job.job, ledger), monkeypatch, orders=3)
        ledger.close()
        in_turn(monkeypatch, lambda: write_json(paths.outcome, {"status": "FINISHED"}))
        watch.watch(paths.id)
        assert f"trials {len(director.trials)} of 12 begun" in capsys.readouterr().out


class TestFate:
    def test_of_a_run(self, going: RunPaths) -> None:
        assert fate(going) == ("RUNNING", "")
        own(going, pid=1, created=1.0, writer=[os.getpid(), ME.create_time()])
        assert fate(going)[0] == "RUNNING", "its writer will say how it ended"
        own(going, pid=1, created=1.0)
        assert fate(going)[0] == "LOST"
        own(going, pid=1, created=1.0, host="elsewhere")
        assert fate(going)[0] == "RUNNING"
        write_json(going.outcome, {"status": "KILLED", "cause": "", "reason": "interrupted"})
        assert fate(going) == ("KILLED", "interrupted")
        going.outcome.unlink()
        going.owner.unlink()
        assert fate(going)[0] == "WAITING"

    def test_of_a_job_in_a_queue(self, going: RunPaths) -> None:
        write_json(going.outcome, {"status": "KILLED"})
        write_json(going.submission, {"state": "PAUSED", "reason": "makes room"})
        assert fate(going) == ("PAUSED", "makes room")
        write_json(going.submission, {"state": "SUCCEEDED"})
        assert fate(going) == ("FINISHED", "")

    def test_of_a_trial(self, going: RunPaths) -> None:
        trial = going.make_trial(3)
        assert fate(trial)[0] == "RUNNING"
        write_json(going.outcome, {"status": "KILLED", "cause": "interrupted"})
        assert fate(trial) == ("KILLED", "interrupted")
        write_json(trial.outcome, {"status": "FINISHED", "reason": "finished"})
        assert fate(trial) == ("FINISHED", "")


class TestFigures:
    def test_the_best_is_the_metrics_own(self, loaded: Loaded) -> None:
        standing = Standing(loaded.job)
        for step, value in enumerate([0.5, 0.9, math.nan, 0.7], start=1):
            standing.add(step, {"valid/accuracy": value, "valid/loss": value, "perf/step_seconds": 1.0})
        assert standing.shown == ["valid/accuracy", "valid/loss"]
        assert standing.curves["valid/accuracy"].best == 0.9
        assert standing.curves["valid/loss"].best == 0.5

    def test_a_long_curve_keeps_its_ends_and_its_best(self) -> None:
        curve = Curve("max")
        for step in range(10_000):
            curve.add(step, 5.0 if step == 3333 else 0.0)
        assert len(curve.points) <= 512
        assert (curve.points[0][0], curve.points[-1][0], curve.best) == (0, 9999, 5.0)

    @pytest.mark.parametrize(
        ("values", "drawn"),
        [([], ""), ([math.nan], ""), ([3.0, 3.0], "▁▁"), ([0, 1, math.inf, 2], "▁▅█"), ([7, 0], "█▁")],
    )
    def test_sparkline(self, values: list[float], drawn: str) -> None:
        assert sparkline(list(enumerate(values))) == drawn

    def test_a_long_sparkline_has_its_columns(self) -> None:
        drawn = sparkline([(step, float(step)) for step in range(1000)], columns=8)
        assert drawn == "▁▂▃▄▅▆▇█"

    def test_before_the_first(self) -> None:
        console = Console(file=StringIO(), width=80)
        console.print(view(Standing(None)))
        assert "no figures yet" in told(console)


def told(console: Console) -> str:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


class TestProgress:
    @pytest.mark.parametrize("terminal", [True, False])
    def test_a_table_on_a_terminal_and_lines_elsewhere(
        self, terminal: bool, loaded: Loaded, going: RunPaths, spool: Spool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        spool.note("of an attempt before")
        spool.metrics(1, {"train/loss": 9.0, "valid/accuracy": 0.9})
        console = Console(file=StringIO(), width=100, force_terminal=terminal)
        monkeypatch.setattr(progress, "plain_console", lambda: console)
        with Progress(going, loaded.job):
            spool.metrics(10, figures(1.0))
            spool.note("a note")
            spool.metrics(20, figures(2.0))
        shown = told(console)
        assert "a note" in shown
        assert "of an attempt before" not in shown
        assert ("METRIC" in shown) is terminal
        if terminal:
            assert "█▁" in shown, "with what was before"
            assert "0.9" in shown
        else:
            assert [line.split()[1] for line in shown.splitlines() if line.startswith("epoch")] == [
                "1.0/10",
                "2.0/10",
            ]


@pytest.mark.parametrize(
    ("expect", "shown"),
    [
        ({"valid/map50": "> 0.5"}, "valid/loss 1  valid/map50 1"),
        ({}, "valid/loss 1  valid/map10 1  valid/map20 1"),
    ],
)
def test_a_line_tells_few_of_many_figures(expect: dict[str, str], shown: str, root: Path) -> None:
    """A detector measures a dozen: those that the job names, or the first ones."""
    found = load_any(root / "jobs" / "vision" / "ssd.yaml")
    assert isinstance(found, Loaded)
    update = {"expect": expect, "checkpoint": found.job.checkpoint.model_copy(update={"best": None})}
    standing = Standing(found.job.model_copy(update=update))
    standing.add(60, {"train/loss": 1.0, "valid/loss": 1.0, **{f"valid/map{n}0": 1.0 for n in range(1, 9)}})
    assert standing.line == f"epoch 0.0/20  step 60  loss 1  {shown}"


def test_what_is_no_job_has_none(going: RunPaths) -> None:
    assert watch._job(going) is not None
    going.spec.write_text("kind: train\n")
    assert watch._job(going) is None
    assert read_json(going.record) is not None
