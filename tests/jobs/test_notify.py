"""Who is told that a run has ended, with what, and that nothing of it changes how the run ended."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from runner import Folder

from dlsys.errors import Interrupted, RunError
from dlsys.jobs import driving as module
from dlsys.jobs.driving import Driving, Ending
from dlsys.jobs.mirror.node import Mirror
from dlsys.jobs.notify import notify, told
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.spec.notify import Notify

ID = "my-run-20260101-120000-abcd"


@dataclass
class Hook:
    """A webhook of this process; `/NUMBER` answers with that status."""

    port: int = 0
    got: list[dict[str, Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def url(self, status: int = 200) -> str:
        return f"http://127.0.0.1:{self.port}/{status}"


@pytest.fixture
def hook() -> Iterator[Hook]:
    hook = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.headers["Content-Type"] == "application/json"
            hook.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            if self.path == "/0":
                hook.release.wait()
            self.send_response(int(self.path[1:]) or 200)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield hook
        hook.release.set()
        server.shutdown()
        thread.join()


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    monkeypatch.setattr(module, "start_writer", lambda paths: subprocess.Popen(["sleep", "0.1"]))
    made = RunPaths.create(ID)
    write_json(made.record, {"run_id": ID, "folder": str(tmp_path)})
    return made


def drive(
    paths: RunPaths, whom: Notify | None, error: BaseException | None = None
) -> tuple[Ending, list[str]]:
    ended, notes = Ending(run_id=paths.id), list[str]()
    with Driving(paths, ended, Mirror(paths, ""), whom=whom, note=notes.append):
        if error is not None:
            raise error
        ended.status = "FINISHED"
    return ended, notes


@pytest.mark.parametrize(
    ("error", "state", "said"),
    [
        (None, "FINISHED", f"my-run has finished ({ID})"),
        (RunError("no room"), "FAILED", f"my-run has failed: no room ({ID})"),
        (Interrupted(), "KILLED", f"my-run was stopped: interrupted ({ID})"),
    ],
)
def test_every_end_is_told_once(
    error: BaseException | None, state: str, said: str, paths: RunPaths, hook: Hook
) -> None:
    ended, notes = drive(paths, Notify(url=hook.url()), error)
    (got,) = hook.got
    assert (got["id"], got["name"], got["state"], got["text"]) == (ID, "my-run", state, said)
    assert (ended.status, notes) == (state, [])


def test_one_that_is_ended_by_force_is_told_once(paths: RunPaths, hook: Hook) -> None:
    ended = Ending(run_id=paths.id)
    with Driving(paths, ended, Mirror(paths, ""), whom=Notify(url=hook.url()), late="late") as driving:
        driving.interrupts.last_act()
    (got,) = hook.got
    assert (got["state"], got["reason"]) == ("KILLED", "late")


def test_figures_and_the_page(paths: RunPaths) -> None:
    known = {"uri": "https://me:secret@mlflow.example/", "run_id": "abc", "experiment_id": "7"}
    write_json(paths.mlflow, known)
    metrics = {"valid/loss": 0.5, "valid/accuracy": math.nan}
    found = told(paths, {"status": "FINISHED", "reason": "target", "metrics": metrics})
    assert found["metrics"] == {"valid/loss": 0.5, "valid/accuracy": None}
    assert found["page"] == "https://mlflow.example/#/experiments/7/runs/abc"
    assert found["reason"] == "target"
    write_json(paths.mlflow, {**known, "uri": "sqlite:///x.db"})
    assert told(paths, {"status": "FINISHED"})["page"] == ""


def test_the_address_of_a_variable(paths: RunPaths, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    whom = Notify(url_from="MY_HOOK")
    ended, notes = drive(paths, whom)
    assert ended.status == "FINISHED"
    assert notes[0] == notes[1], "it is told at the start, and at the end"
    assert "MY_HOOK is not set" in notes[0]
    monkeypatch.setenv("MY_HOOK", hook.url())
    assert drive(paths, whom)[1] == []
    assert len(hook.got) == 1


def test_what_every_run_tells(paths: RunPaths, hook: Hook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drive(paths, None)[1] == []
    monkeypatch.setenv("DLSYS_NOTIFY", hook.url())
    drive(paths, None)
    assert len(hook.got) == 1
    monkeypatch.setenv("DLSYS_NOTIFY", "/no/such program")
    assert drive(paths, Notify(url=hook.url()))[1] == [], "the file outranks it"
    assert "/no/such cannot be started" in drive(paths, None)[1][0]


def test_what_has_not_ended_is_not_told(paths: RunPaths, hook: Hook) -> None:
    whom = Notify(url=hook.url())
    write_json(paths.submission, {"asked": "pause"})
    drive(paths, whom, Interrupted())
    paths.submission.unlink()
    write_json(paths.record, {"run_id": ID, "parent": "verify-20260101-120000-abcd"})
    drive(paths, whom)
    assert hook.got == []


@pytest.mark.parametrize(
    ("status", "why"),
    [(404, "the webhook answers 404 Not Found"), (0, "the webhook does not answer: timed out")],
)
def test_a_webhook_that_fails_changes_nothing(
    status: int, why: str, paths: RunPaths, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dlsys.jobs.notify._PATIENCE", 0.2)
    ended, notes = drive(paths, Notify(url=hook.url(status)))
    assert (ended.status, ended.error) == ("FINISHED", None)
    assert notes == [f"nobody was told of the run's end: {why}"]
    assert (read_json(paths.outcome) or {})["status"] == "FINISHED"


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/t0ken", "file:///t0ken", "http://[t0ken", "http://a b/t0ken"]
)
def test_no_message_repeats_an_address(
    address: str, paths: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_HOOK", address)
    why = notify(paths, Notify(url_from="MY_HOOK"), {"status": "FAILED"}, 1.0)
    assert why.startswith("nobody was told")
    assert "t0ken" not in why


class TestCommand:
    def words(self, code: str) -> Notify:
        return Notify(command=(sys.executable, "-c", code))

    def test_it_gets_all_of_it(self, paths: RunPaths, tmp_path: Path) -> None:
        code = (
            "import json, os, sys; got = json.load(sys.stdin); "
            "got['told'] = {k: v for k, v in os.environ.items() if k.startswith('DLSYS_RUN_')}; "
            "json.dump(got, open('told.json', 'w'))"
        )
        assert drive(paths, self.words(code), RunError("no room"))[1] == []
        got = read_json(tmp_path / "told.json") or {}
        assert (got["id"], got["state"], got["reason"]) == (ID, "FAILED", "no room")
        assert got["told"] == {
            "DLSYS_RUN_ID": ID,
            "DLSYS_RUN_NAME": "my-run",
            "DLSYS_RUN_STATE": "FAILED",
            "DLSYS_RUN_REASON": "no room",
            "DLSYS_RUN_PAGE": "",
        }

    def test_one_that_fails_is_told(self, paths: RunPaths) -> None:
        ended, (note,) = drive(paths, self.words("import sys; sys.exit('no such desk')"))
        assert ended.status == "FINISHED"
        assert note.endswith("ended with exit code 1: no such desk")

    def test_one_that_takes_too_long_is_ended(self, paths: RunPaths, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("dlsys.jobs.notify._PATIENCE", 0.2)
        assert "was not done in" in drive(paths, self.words("import time; time.sleep(60)"))[1][0]


def test_a_run_of_a_file(tmp_path: Path, hook: Hook) -> None:
    """From the file to the webhook; the address is in nothing that the run leaves."""
    folder = Folder(tmp_path)
    try:
        with open(folder.path / "job.yaml", "a") as file:
            file.write("notify: {url_from: MY_HOOK}\n")
        done = folder.dlsys("run", "job.yaml", "stop.epochs=1", MY_HOOK=hook.url())
        assert done.code == 0, done.err
        (got,) = hook.got
        assert (got["id"], got["state"]) == (folder.run.id, "FINISHED")
        assert got["metrics"]["valid/accuracy"] > 0
        for path in folder.run.root.rglob("*"):
            assert not path.is_file() or hook.url().encode() not in path.read_bytes()
    finally:
        folder.clean()
