"""MLflow refuses, hangs, fails or is locked: training goes on, and nothing is lost."""

from __future__ import annotations

import http.client
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from runner import Folder

from dlsys.track.store import Store

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from outage import Server

pytestmark = pytest.mark.faults


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


def each_step_once(uri: str, name: str = "train/loss") -> None:
    store = Store(uri)
    (run,) = store.runs()
    assert run.info.status == "FINISHED"
    steps = [point.step for point in store.client.get_metric_history(run.info.run_id, name)]
    assert sorted(steps) == list(range(1, 70))


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_server_gone_in_the_middle(number: int, server: Server, folder: Folder, tmp_path: Path) -> None:
    process = folder.start("run", "job.yaml", f"tracking.uri={server.uri}", STEP_SECONDS="0.05")
    folder.wait_for(lambda: folder.step() >= 23)
    server.signal(number)
    folder.wait_for(lambda: folder.step() >= 46)
    if number == signal.SIGSTOP:
        server.signal(signal.SIGCONT)
        assert folder.finish(process).code == 0
        assert folder.dlsys("runs", "sync").code == 0
    else:
        done = folder.finish(process)
        assert done.code == 0, "a run does not fail because its tracker is away"
        assert "dlsys runs sync" in done.err
        folder.assert_alone(60)
        server.restart()
        done = folder.dlsys("runs", "sync")
        assert done.code == 0, done.err
    each_step_once(server.uri)


class Gateway(ThreadingHTTPServer):
    """Stands before a real server, and ails on demand.

    Attributes:
        ailment: "" passes on; "slow" does so after 10 s; "refused" answers 500; "lost" passes on and
            answers 500, so that what was stored looks as if it were not.
        ailed: requests answered while it ailed.
    """

    daemon_threads = True

    def __init__(self, uri: str) -> None:
        super().__init__(("127.0.0.1", 0), _Passage)
        self.behind = urlsplit(uri).netloc
        self.ailment = ""
        self.ailed = 0
        self.uri = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Passage(BaseHTTPRequestHandler):
    server: Gateway

    def _pass_on(self) -> None:
        ailment = self.server.ailment
        self.server.ailed += bool(ailment)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if ailment == "slow":
            time.sleep(10)
        status, answer = 500, b"{}"
        if ailment != "refused":
            behind = http.client.HTTPConnection(self.server.behind, timeout=60)
            behind.request(self.command, self.path, body, {"Content-Type": "application/json"})
            found = behind.getresponse()
            status, answer = found.status, found.read()
            behind.close()
        self.send_response(500 if ailment == "lost" else status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("ailment", ["slow", "refused", "lost"])
def test_a_server_that_ails_in_the_middle(ailment: str, server: Server, folder: Folder) -> None:
    gateway = Gateway(server.uri)
    try:
        process = folder.start("run", "job.yaml", f"tracking.uri={gateway.uri}", STEP_SECONDS="0.1")
        folder.wait_for(lambda: folder.step() >= 23)
        gateway.ailment = ailment
        began = time.monotonic()
        folder.wait_for(lambda: folder.step() >= 46)
        # 23 steps of 0.1 s; one that waited for the tracker would take ten more seconds.
        assert time.monotonic() - began < 10
        folder.wait_for(lambda: gateway.ailed > 0)
        gateway.ailment = ""
        done = folder.finish(process)
        assert done.code == 0, done.err
        assert folder.dlsys("runs", "sync").code == 0
        each_step_once(server.uri)
    finally:
        gateway.shutdown()
        gateway.server_close()


def test_no_server_from_the_start(folder: Folder, server: Server) -> None:
    server.signal(signal.SIGKILL)
    done = folder.dlsys("run", "job.yaml", f"tracking.uri={server.uri}")
    assert done.code == 0
    assert "dlsys runs sync" in done.err
    folder.assert_alone(60)
    server.restart()
    assert folder.dlsys("runs", "sync").code == 0
    each_step_once(server.uri)


def test_a_store_locked_for_a_minute(folder: Folder) -> None:
    folder.store()
    path = folder.path / ".dlsys" / "mlflow.db"
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    process = folder.start("run", "job.yaml")
    folder.wait_for(lambda: folder.step() >= 69)
    assert time.monotonic() - began < 40, "training does not wait for the store"
    time.sleep(max(0, began + 60 - time.monotonic()))
    lock.execute("ROLLBACK")
    lock.close()
    assert folder.finish(process).code == 0
    folder.assert_alone(30)
    assert folder.dlsys("runs", "sync").code == 0
    each_step_once(f"sqlite:///{path}")
