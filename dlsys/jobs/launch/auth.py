"""Ray's access token. Ray makes one by itself, but readable by everyone on the machine."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from dlsys.errors import RunError


def asks_for_token(address: str) -> bool:
    """Whether the cluster at `host:port` refuses a client without a token.

    Raises:
        RunError: nothing answers there; Ray itself would try for two minutes.
    """
    import grpc

    with grpc.insecure_channel(address) as channel:
        # The first thing that every client asks; its request is an empty message.
        call = channel.unary_unary("/ray.rpc.NodeInfoGcsService/GetClusterId")
        try:
            call(b"", timeout=5)
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                raise RunError(
                    f"no Ray cluster answers at {address}",
                    hint="Start one (ray start --head), or leave --address and RAY_ADDRESS out.",
                ) from error
            return bool(error.code() == grpc.StatusCode.UNAUTHENTICATED)
    return False


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
