"""Tells somebody that a run has ended: a webhook, or a command. What fails here never fails a run."""

from __future__ import annotations

import json
import math
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from dlsys.paths import RunPaths, read_json
from dlsys.spec.notify import Notify
from dlsys.track.address import public

# A user's default, for runs whose files say nothing: an address, or a command.
VARIABLE = "DLSYS_NOTIFY"
# Seconds that a webhook or a command gets.
_PATIENCE = 10.0
_VERBS = {"FINISHED": "has finished", "FAILED": "has failed", "KILLED": "was stopped"}


def told(paths: RunPaths, outcome: dict[str, Any]) -> dict[str, Any]:
    """What is said of a run that has ended, as JSON.

    Args:
        outcome: its status, cause and metrics.
    """
    state, metrics = str(outcome["status"]), outcome.get("metrics", {})
    name = paths.id[:-21]  # without its date, its time and what makes it unique
    reason = str(outcome.get("cause") or outcome.get("reason") or "")
    said = f"{name} {_VERBS.get(state, state)}" + (f": {reason}" if state != "FINISHED" and reason else "")
    known = read_json(paths.mlflow) or {}
    uri, page = str(known.get("uri", "")), ""
    if uri.startswith(("http:", "https:")):
        page = f"{public(uri)}/#/experiments/{known['experiment_id']}/runs/{known['run_id']}"
    return {
        # Slack's webhooks, and those that speak like them, show this.
        "text": f"{said} ({paths.id}) {page}".rstrip(),
        "id": paths.id,
        "name": name,
        "state": state,
        "reason": reason,
        "metrics": {key: value if math.isfinite(value) else None for key, value in metrics.items()},
        "page": page,
    }


def notify(paths: RunPaths, chosen: Notify | None, outcome: dict[str, Any], patience: float) -> str:
    """Tells whoever is to be told.

    Args:
        chosen: what the run's file says; without it, DLSYS_NOTIFY.
        outcome: as `told` has it.
        patience: seconds at most.

    Returns:
        Why nobody was told, in a sentence without what may be a secret; nothing where all went well.
    """
    try:
        return _notify(paths, chosen, outcome, patience)
    except Exception as error:  # whatever it is, the run has ended as it has
        return f"nobody was told of the run's end ({type(error).__name__})"


def _notify(paths: RunPaths, chosen: Notify | None, outcome: dict[str, Any], patience: float) -> str:
    record = read_json(paths.record) or {}
    # A part of another run, or a job that only makes room and goes on later, has not ended.
    if "parent" in record or (read_json(paths.submission) or {}).get("asked") == "pause":
        return ""
    if missing := absent(chosen):
        return missing
    url, command = _whom(chosen)
    if not url and not command:
        return ""
    patience, said = min(patience, _PATIENCE), told(paths, outcome)
    folder = Path(record.get("folder", ".")) if chosen else Path()
    why = _post(url, said, patience) if url else _run(command, said, patience, folder)
    return f"nobody was told of the run's end: {why}" if why else ""


def absent(chosen: Notify | None) -> str:
    """What is missing already now for telling anybody, in a sentence."""
    if chosen is not None and chosen.url_from and not os.environ.get(chosen.url_from):
        mend = f"export {chosen.url_from}=…, and for clusters dlsys submit --secret {chosen.url_from}"
        return f"notify.url_from: {chosen.url_from} is not set: nobody is told of the run's end ({mend})"
    return ""


def _whom(chosen: Notify | None) -> tuple[str, list[str]]:
    """The address, or the command; neither where nobody is to be told."""
    if chosen is not None:
        return chosen.url or os.environ.get(chosen.url_from, ""), list(chosen.command)
    text = os.environ.get(VARIABLE, "")
    if text.startswith(("http:", "https:")):
        return text, []
    try:
        return "", shlex.split(text)
    except ValueError:  # a quote that is not closed: said as a program that is not there
        return "", [text]


def _post(url: str, said: dict[str, Any], patience: float) -> str:
    """Why a webhook did not take it. The address, which may be a secret, is in no message."""
    if not url.startswith(("http:", "https:")):  # urllib reads files, too
        return "the address does not begin with http:// or https://"
    try:
        request = Request(url, json.dumps(said).encode(), {"Content-Type": "application/json"})
        with urlopen(request, timeout=patience):
            return ""
    except HTTPError as error:
        return f"the webhook answers {error.code} {error.reason}"
    except OSError as error:
        return f"the webhook does not answer: {getattr(error, 'reason', error)}"
    except Exception as error:  # of an address that is none; such an error repeats it
        return f"the webhook's address cannot be used ({type(error).__name__})"


def _run(command: list[str], said: dict[str, Any], patience: float, folder: Path) -> str:
    """Why a command did not come to a good end."""
    fields = ("id", "name", "state", "reason", "page")
    told = {f"DLSYS_RUN_{name.upper()}": str(said[name]) for name in fields}
    try:
        done = subprocess.run(
            command,
            input=json.dumps(said),
            env={**os.environ, **told},
            cwd=folder,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=patience,
            start_new_session=True,  # a second Ctrl-C is the run's
        )
    except subprocess.TimeoutExpired:
        return f"{command[0]} was not done in {patience:.0f} s"
    except (OSError, ValueError) as error:
        return f"{command[0]} cannot be started: {getattr(error, 'strerror', None) or error}"
    if done.returncode == 0:
        return ""
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return f"{command[0]} ended with exit code {done.returncode}{f': {last}' if last else ''}"
