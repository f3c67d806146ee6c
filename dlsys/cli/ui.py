"""`ui`: MLflow's own pages on this folder's runs."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer


def ui(
    port: Annotated[int, typer.Option(help="The port.")] = 5000,
    host: Annotated[
        str, typer.Option(help="The address to listen on; only this machine by default.")
    ] = "127.0.0.1",
) -> None:
    """Open the MLflow UI on this folder's runs; Ctrl-C ends it."""
    from dlsys.track.record import usual_uri
    from dlsys.track.store import Store

    uri = usual_uri()
    if not uri.startswith("sqlite"):
        print(f"Runs are kept by the server at {uri}: open that address.", file=sys.stderr)
        return
    Store(uri)  # makes the store if this is the first look
    print(f"MLflow UI on http://{host}:{port} (Ctrl-C ends it)", file=sys.stderr)
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--registry-store-uri", uri]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PYTHONWARNINGS": "ignore"}
    os.execve(sys.executable, [*command, "--host", host, "--port", str(port)], environment)
