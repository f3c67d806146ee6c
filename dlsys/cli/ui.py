"""`ui`: MLflow's own pages, opened at a run, a sweep or an experiment."""

from __future__ import annotations

import os
import socket
import sys
from typing import Annotated

import typer

from dlsys.errors import UsageError


def ui(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[RUN|SWEEP|EXPERIMENT]",
            help="What to open: the beginning of an id, or an experiment's name; by default the newest one.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(help="The port.")] = 5000,
    host: Annotated[
        str, typer.Option(help="The address to listen on; only this machine by default.")
    ] = "127.0.0.1",
    browse: Annotated[bool, typer.Option("--open/--no-open", help="Whether a browser opens it.")] = True,
) -> None:
    """Open a run, a sweep's trials or an experiment in the MLflow UI; Ctrl-C ends it."""
    from dlsys.track.address import public
    from dlsys.track.pages import page, serve
    from dlsys.track.store import Store

    uri = _store_of(what)
    shown = _open if browse and _has_browser() else lambda address: None
    if uri.startswith(("http:", "https:")):
        address = public(uri) + page(uri, what)
        print(address)
        shown(address)
        return
    if uri.startswith(("databricks", "uc")):
        raise UsageError(f"runs are kept by {uri.partition(':')[0]}: their pages are in its workspace")
    _refuse_taken(host, port)
    Store(uri)  # makes the store if this is the first look
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    server = f"http://{f'[{near}]' if ':' in near else near}:{port}"
    address, out = server + page(uri, what), sys.stdout

    def tell() -> None:
        print(address, file=out, flush=True)
        shown(address)

    print("MLflow's pages (Ctrl-C ends them):", file=sys.stderr, flush=True)
    serve(uri, host, port, server, tell)


def _store_of(what: str | None) -> str:
    """The store that has it: a run of this folder's may be in another than the usual one."""
    from dlsys.jobs.moved import settle
    from dlsys.paths import RunPaths
    from dlsys.track.record import usual_uri

    here = RunPaths.fitting(what) if what else []
    return str(settle(here[0])["uri"]) if len(here) == 1 else usual_uri()


def _refuse_taken(host: str, port: int) -> None:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.create_server((host, port), family=family).close()
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)  # its own text says the address twice
        why = os.strerror(number).lower() if number and number > 0 else error
        hint = f"Say another: --port {port + 1}" if port < 65535 else ""
        raise UsageError(f"--host {host} --port {port}: cannot be listened on: {why}", hint=hint) from error


def _has_browser() -> bool:
    """Whether there is one with a window: another would take the terminal."""
    return sys.stdout.isatty() and bool({"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys())


def _open(address: str) -> None:
    import webbrowser

    webbrowser.open(address)
