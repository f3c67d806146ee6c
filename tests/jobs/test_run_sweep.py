"""`dlsys run` of a sweep on Ray Tune: real trials, real deaths, one record of them."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from runner import Done, Folder

from dlsys.paths import RunPaths

pytestmark = pytest.mark.ray

SWEEP = """
kind: sweep
name: search
job: job.yaml
overrides: {checkpoint: {every: 1 epoch}}
metric: valid/accuracy
mode: max
space: {optimizer.lr: {log_uniform: [1.0e-3, 0.3]}}
scheduler: {name: asha, max: 3 epochs}
trials: 6
"""


def sweep_folder(path: Path, *changes: tuple[str, str]) -> Folder:
    folder = Folder(path)
    text = SWEEP
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (path / "sweep.yaml").write_text(text)
    return folder


def events(folder: Folder) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder.run.root / "ledger.jsonl").read_text().splitlines()]


def reports(folder: Folder) -> Counter[tuple[int, int]]:
    return Counter((e["trial"], e["epoch"]) for e in events(folder) if e["event"] == "report")


def told(done: Done) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.out)
    return found


def assert_tracked(folder: Folder, trials: int) -> None:
    """One parent, its trials below it, each once, and none that seems to run."""
    runs = folder.store().runs(prefix=folder.run.id)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    (parent,) = parents
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    names = Counter(run.data.tags["dlsys.run_id"] for run in children)
    assert names == {f"{folder.run.id}.{number:05}": 1 for number in range(trials)}
    assert "RUNNING" not in {run.info.status for run in runs}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Folder, Done]:
    folder = sweep_folder(tmp_path_factory.mktemp("sweep"))
    done = folder.dlsys("run", "sweep.yaml", "--json")
    assert done.code == 0, done.err
    folder.assert_alone()
    return folder, done


def test_a_sweep_is_a_parent_with_its_trials(whole: tuple[Folder, Done]) -> None:
    folder, done = whole
    assert told(done)["trials"].keys() <= {"done", "stopped"}
    assert sum(told(done)["trials"].values()) == 6
    assert told(done)["epochs"] < 18
    assert_tracked(folder, 6)
    ours = ("sweep search-", "trial ", "Its trials:", "The best job:", "Its report:", "See it:")
    for line in done.err.splitlines():
        assert line.startswith(ours), f"not ours: {line}"
    assert not (folder.run.root / "tune").exists(), "nothing of Tune's is left"
    page = (folder.run.artifacts / "report.html").read_text()
    assert f"of trial {told(done)['best']['trial']} after 3 epochs" in page
    runs = folder.store().runs(prefix=folder.run.id)
    (parent,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
    kept = {item.path for item in folder.store().client.list_artifacts(parent.info.run_id, "samples")}
    assert "samples/report.html" in kept


def test_a_sweep_learns_from_an_earlier_one_in_mlflow(whole: tuple[Folder, Done], tmp_path: Path) -> None:
    earlier, _ = whole
    warm = sweep_folder(
        tmp_path, ("trials: 6", f"trials: 1\nsearcher: {{name: tpe, warm_start: [{earlier.run.id}]}}")
    )
    done = warm.dlsys("run", "sweep.yaml", MLFLOW_TRACKING_URI=f"sqlite:///{earlier.path}/.dlsys/mlflow.db")
    assert done.code == 0, done.err
    tried = {event["settings"]["optimizer.lr"] for event in events(earlier) if event["event"] == "trial"}
    learned = [event["settings"]["optimizer.lr"] for event in events(warm) if event["event"] == "warm"]
    assert sorted(learned) == sorted(tried)


def test_the_best_job_gives_the_same_figure_by_itself(whole: tuple[Folder, Done]) -> None:
    """Trials share actors, and are paused and taken up again; that must change nothing."""
    folder, done = whole
    best = folder.dlsys("sweep", "best", "search")
    assert best.code == 0, best.err
    alone = Folder(folder.path / "alone") if (folder.path / "alone").mkdir() is None else folder
    (alone.path / "best.yaml").write_text(best.out)
    again = alone.dlsys("run", "best.yaml", "--json")
    assert again.code == 0, again.err
    assert told(again)["metrics"]["valid/accuracy"] == told(done)["best"]["value"]
    assert told(again)["metrics"]["valid/loss"] == pytest.approx(
        next(e["metrics"]["valid/loss"] for e in reversed(events(folder)) if _is_best(e, told(done))), abs=0
    )


def _is_best(event: dict[str, Any], found: dict[str, Any]) -> bool:
    return event["event"] == "report" and event["trial"] == found["best"]["trial"]


def test_its_trials_are_listed(whole: tuple[Folder, Done]) -> None:
    folder, done = whole
    rows = json.loads(folder.dlsys("sweep", "trials", "search", "--json").out)
    assert next(row["trial"] for row in rows if row["status"] == "done") == told(done)["best"]["trial"]
    assert len(rows) == 6
    (row,) = json.loads(folder.dlsys("sweep", "list", "--json").out)
    assert (row["status"], row["trials"]) == ("FINISHED", 6)


def test_a_finished_sweep_is_extended(whole: tuple[Folder, Done]) -> None:
    folder, _ = whole
    before = reports(folder)
    done = folder.dlsys("sweep", "extend", "search", "--trials", "+3", "--json")
    assert done.code == 0, done.err
    after = reports(folder)
    assert set(after.values()) == {1}
    assert before.keys() <= after.keys()
    assert {trial for trial, _ in after} == set(range(9))
    assert_tracked(folder, 9)


@pytest.mark.usefixtures("interpreters")
def test_interrupted_killed_and_taken_up_again(tmp_path: Path) -> None:
    """Ctrl-C, then kill -9 of the driver: nothing is lost, and nothing reported is trained twice."""
    folder = sweep_folder(tmp_path)
    slow = {"STEP_SECONDS": "0.02"}
    try:
        process = folder.start("run", "sweep.yaml", **slow)
        folder.wait_for(lambda: _reported(folder) >= 1)
        process.send_signal(signal.SIGINT)
        done = folder.finish(process, timeout=15)
        assert done.code == 130
        assert "dlsys sweep resume" in done.err
        folder.assert_alone()
        kept = reports(folder)
        process = folder.start("sweep", "resume", "search", **slow)
        folder.wait_for(lambda: _reported(folder) >= len(kept) + 2)
        process.kill()
        folder.finish(process)
        kept = reports(folder)
        done = folder.dlsys("sweep", "resume", "search", "--json")
        assert done.code == 0, done.err
        after = reports(folder)
        assert set(after.values()) == {1}
        assert kept.keys() <= after.keys()
        assert {trial for trial, _ in after} == set(range(6))
        assert_tracked(folder, 6)
        folder.assert_alone()
    finally:
        folder.clean()


def _reported(folder: Folder) -> int:
    try:
        return sum(reports(folder).values())
    except (ValueError, OSError):  # not there yet, or a line is just being written
        return 0


def test_a_killed_trial_is_tried_again_and_a_wrong_one_is_not(tmp_path: Path) -> None:
    folder = sweep_folder(
        tmp_path, ("{name: asha, max: 3 epochs}", "{name: fifo}"), ("trials: 6", "trials: 3")
    )
    try:
        done = folder.dlsys("run", "sweep.yaml", "--json", FAULT="kill", FAULT_STEP="30")
        assert done.code == 0, done.err
        assert told(done)["trials"] == {"done": 3}
        crashes = [event for event in events(folder) if event["event"] == "crash"]
        assert [crash["final"] for crash in crashes] == [False]
        assert_tracked(folder, 3)
        (folder.path / "fault-struck").unlink()
        done = folder.dlsys(
            "sweep", "extend", "search", "--trials", "+2", "--json", FAULT="raise", FAULT_STEP="30"
        )
        assert done.code == 0, done.err
        assert told(done)["trials"] == {"done": 4, "failed": 1}
        rows = json.loads(folder.dlsys("sweep", "trials", "search", "--json").out)
        (failed,) = [row for row in rows if row["status"] == "failed"]
        assert "KeyError" in failed["cause"]
        assert failed["crashes"] == 1
    finally:
        folder.clean()


def test_trials_of_two_workers_take_turns(tmp_path: Path) -> None:
    """Two such trials at once would each hold one core and wait for the other's."""
    folder = sweep_folder(
        tmp_path,
        ("overrides: {", "overrides: {resources.workers: 2, "),
        ("max: 3 epochs", "max: 3 epochs, grace: 3 epochs"),
        ("trials: 6", "trials: 2"),
    )
    try:
        done = folder.dlsys("run", "sweep.yaml", "--json")
        assert done.code == 0, done.err
        assert told(done)["trials"] == {"done": 2}
        folder.assert_alone()
    finally:
        folder.clean()


def test_what_does_not_fit_is_refused_before_anything_starts(tmp_path: Path) -> None:
    folder = sweep_folder(tmp_path, ("overrides: {", "overrides: {resources: {workers: 1, cpus: 999}, "))
    done = folder.dlsys("run", "sweep.yaml")
    assert done.code != 0
    assert "999" in done.err
    assert "this machine has" in done.err
    assert not (folder.path / ".dlsys").exists(), "nothing was begun"


def test_a_clone_goes_on_from_its_donors_step(tmp_path: Path) -> None:
    folder = sweep_folder(
        tmp_path,
        ("{name: asha, max: 3 epochs}", "{name: pbt, mutate: [optimizer.lr], quantile: 0.5}"),
        ("trials: 6", "trials: 4"),
        ("[1.0e-3, 0.3]", "[1.0e-5, 0.3]"),
    )
    try:
        done = folder.dlsys("run", "sweep.yaml", "--json")
        assert done.code == 0, done.err
        clones = [event for event in events(folder) if event.get("donor") is not None]
        assert clones
        for clone in clones:
            spool = RunPaths(folder.run.root).trial(clone["trial"]).spool / "rank-0.jsonl"
            notes = [json.loads(line).get("note", "") for line in spool.read_text().splitlines()]
            begun = [note for note in notes if note.startswith("continues from the checkpoint of step")]
            steps = {int(note.split()[-1]) for note in begun}
            assert (clone["until"] - 1) * 23 in steps, "1,437 rows in batches of 64 are 23 steps"
    finally:
        folder.clean()
