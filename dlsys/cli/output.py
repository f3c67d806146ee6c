"""`--json`: one JSON document on standard output, and nothing else there."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from typing import IO, Annotated, Any

import typer

_channel: IO[str] | None = None


def _only_data(asked: bool) -> bool:
    """Keeps standard output for the document: what libraries, the user's code and child processes print
    goes to standard error."""
    global _channel
    if asked and _channel is None:
        sys.stdout.flush()
        _channel = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return asked


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.", callback=_only_data)]


def give(document: Any, *, indent: int | None = None) -> None:
    """Writes the document; numbers that JSON has no word for (NaN, infinities) are null."""
    text = json.dumps(_plain(document), indent=indent, allow_nan=False, default=str)
    print(text, file=_channel or sys.stdout, flush=True)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
