"""MLflow's own pages: where they show a run, a sweep's trials or an experiment, and who serves them.

The routes are those of its front end, version 3.17.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from typing import Any
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

from dlsys.errors import RunError
from dlsys.track.runs import listed, one_of

_LOOK = 0.1


def page(uri: str, what: str | None) -> str:
    """The part of a page's address behind that of the server.

    Args:
        uri: the store.
        what: an experiment's name, or the beginning of a run's id; by default the newest run's experiment.

    Raises:
        UsageError: no such run, or several.
        TrackingError: the store cannot be read.
    """
    from dlsys.track.store import Store

    if what is None:
        newest = listed(uri, 1)
        return _runs(newest[0].info.experiment_id) if newest else "/#/experiments"
    if (experiment := Store(uri).find_experiment(what)) is not None:
        return _runs(experiment)
    run = one_of(listed(uri, 1000, what), what)
    if run.data.tags.get("dlsys.kind") == "sweep":
        trials = quote(f"tags.mlflow.parentRunId = '{run.info.run_id}'", safe="")
        return f"{_runs(run.info.experiment_id)}?searchFilter={trials}"
    return f"{_runs(run.info.experiment_id)}/{run.info.run_id}"


def _runs(experiment: Any) -> str:
    return f"/#/experiments/{experiment}/runs"


def serve(uri: str, host: str, port: int, server: str, tell: Callable[[], None]) -> None:
    """Runs MLflow's server until a signal ends it.

    Args:
        uri: the store.
        server: its address from here.
        tell: called in a thread of its own, once it answers.

    Raises:
        RunError: it never did.
    """
    from mlflow.cli import cli

    answered = threading.Event()

    def look() -> None:
        _wait_for(f"{server}/health")
        answered.set()
        tell()

    threading.Thread(target=look, daemon=True, name="dlsys-ui").start()
    os.environ |= {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    words = ["ui", "--backend-store-uri", uri, "--registry-store-uri", uri, "--host", host]
    # One person looks; and of what its server says, this lets through what is wrong.
    words += ["--port", str(port), "--workers", "1", "--uvicorn-opts", "--log-level warning"]
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        cli.main(words, standalone_mode=False)
    if not answered.is_set():
        raise RunError("MLflow's server ended before it answered")


def _wait_for(address: str) -> None:
    straight = build_opener(ProxyHandler({}))
    while True:
        try:
            straight.open(address, timeout=5).close()
        except OSError:  # urllib's are of this kind, too
            time.sleep(_LOOK)
        else:
            return
