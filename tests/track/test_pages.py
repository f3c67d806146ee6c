"""`dlsys ui` opens MLflow's pages where the run is; a real server answers there."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from urllib.request import ProxyHandler, build_opener

import pytest
from runner import Folder

from dlsys.cli.ui import ui
from dlsys.errors import UsageError
from dlsys.paths import RunPaths, write_json
from dlsys.track.address import public
from dlsys.track.pages import page
from dlsys.track.store import Store

SWEEP, TRIAL, RUN = "s-20261130-120000-abcd", "s-20261130-120000-abcd.00001", "r-20261130-120001-abcd"


@pytest.fixture
def made(uri: str) -> dict[str, str]:
    """MLflow's ids of a sweep, its trial, and a later run in an experiment of its own."""
    store = Store(uri)
    client, found = store.client, {}
    at = int(time.time() * 1000)
    found[SWEEP] = client.create_run("1", at, {"dlsys.run_id": SWEEP, "dlsys.kind": "sweep"}).info.run_id
    child = {"dlsys.run_id": TRIAL, "mlflow.parentRunId": found[SWEEP]}
    found[TRIAL] = client.create_run("1", at + 1, child).info.run_id
    found["other"] = store.experiment("other")
    found[RUN] = client.create_run(found["other"], at + 2, {"dlsys.run_id": RUN}).info.run_id
    return found


def test_the_page_of_what_is_asked_for(uri: str, made: dict[str, str]) -> None:
    assert page(uri, "r-") == f"/#/experiments/{made['other']}/runs/{made[RUN]}"
    assert page(uri, TRIAL) == f"/#/experiments/1/runs/{made[TRIAL]}"
    assert page(uri, "e") == "/#/experiments/1/runs"
    assert page(uri, None) == f"/#/experiments/{made['other']}/runs"
    with pytest.raises(UsageError, match="no run 'nothing'"):
        page(uri, "nothing")


def test_a_sweep_is_the_table_of_its_trials(uri: str, made: dict[str, str]) -> None:
    table, _, condition = page(uri, SWEEP).partition("?searchFilter=")
    assert table == "/#/experiments/1/runs"
    (trial,) = Store(uri).client.search_runs(["1"], unquote(condition))
    assert trial.info.run_id == made[TRIAL]


def test_before_the_first_run(uri: str) -> None:
    assert page(uri, None) == "/#/experiments"


def test_a_server_s_own_page(
    uri: str,
    made: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example:8443/base/")
    monkeypatch.setattr("dlsys.track.pages.page", lambda at, what: page(uri, what))
    ui("r-")
    said = capsys.readouterr()
    assert said.out == f"https://mlflow.example:8443/base/#/experiments/{made['other']}/runs/{made[RUN]}\n"
    assert public("http://localhost:5000") == "http://localhost:5000"


def test_a_port_that_is_taken(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"--port {port}: .* address already in use$") as refused:
            ui(port=port)
    assert "--port" in refused.value.hint


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path)
    yield folder
    folder.clean()


@pytest.mark.slow
def test_a_real_server_answers_and_says_nothing(uri: str, made: dict[str, str], folder: Folder) -> None:
    """A run of this folder opens in its own store, which no variable names."""
    paths = RunPaths.create(RUN)
    write_json(paths.record, {"run_id": RUN, "uri": uri})
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = folder.start("ui", RUN, "--port", str(port))
    out = Path(folder._out.name)
    folder.wait_for(lambda: out.read_text().endswith("\n") or process.poll() is not None, 120)
    address = out.read_text().strip()
    assert address == f"http://127.0.0.1:{port}/#/experiments/{made['other']}/runs/{made[RUN]}", folder.err
    straight = build_opener(ProxyHandler({}))
    assert b"<title>MLflow</title>" in straight.open(address.partition("#")[0], timeout=60).read()
    process.send_signal(signal.SIGINT)
    done = folder.finish(process)
    assert (done.code, done.err) == (0, "MLflow's pages (Ctrl-C ends them):\n")
    folder.assert_alone()
