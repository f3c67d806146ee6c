"""`doctor`: what this machine, this environment and the store have, and what they lack."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from dlsys.cli.output import AsJson, give

if TYPE_CHECKING:
    from dlsys.cluster.provider import Finding

_MARKS = {"ok": "ok  ", "warning": "WARN", "wrong": "BAD "}


def doctor(as_json: AsJson = False) -> None:
    """Look for what could keep dlsys from working here; exit code 1 when something is wrong."""
    from dlsys.jobs.doctor import examine

    tell(examine(), as_json)


def tell(findings: Iterable[Finding], as_json: bool = False) -> None:
    """Prints each, and leaves with exit code 1 if one is wrong."""
    told = []
    for finding in findings:
        told.append(finding)
        if not as_json:
            print(f"{_MARKS[finding.state]} {finding.what}", flush=True)
            if finding.mend:
                print(f"     {finding.mend}", flush=True)
    if as_json:
        give([{"state": one.state, "what": one.what, "mend": one.mend} for one in told])
    if any(one.state == "wrong" for one in told):
        raise typer.Exit(1)
