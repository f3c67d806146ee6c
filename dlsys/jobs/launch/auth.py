"""Ray's access token. Ray makes one by itself, but readable by everyone on the machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def ensure_token() -> None:
    """Makes the token before Ray would, readable by its owner alone; keeps an existing one."""
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return
    path = Path.home() / ".ray" / "auth_token"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        path.chmod(0o600)
        return
    with os.fdopen(handle, "w") as file:
        file.write(secrets.token_hex(32))
