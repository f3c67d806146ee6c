"""An `ssh` into network namespaces of this machine: a host is a namespace of its name.

    fake_ssh.py ssh's own arguments

Commands go through `ip netns exec`; `-N -L` is a forwarder that listens here and connects there.
"""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
from contextlib import suppress

CLONE_NEWNET = 0x40000000


def main(words: list[str]) -> None:
    at = words.index("--")
    host, *line = words[at + 1 :]
    if os.path.exists(f"{os.environ['FAKE_SSH_AWAY']}/{host}"):
        sys.exit(f"ssh: connect to host {host} port 22: No route to host")
    if "-L" in words:
        _, local, there, port = words[words.index("-L") + 1].split(":")
        forward(host, int(local), there, int(port))
    # As sshd does: a shell reads one text.
    os.execvp("ip", ["ip", "netns", "exec", host, "sh", "-c", " ".join(line)])


def forward(host: str, local: int, there: str, port: int) -> None:
    with socket.create_server(("127.0.0.1", local)) as server:
        while True:
            near, _ = server.accept()
            threading.Thread(target=serve, args=(near, host, there, port), daemon=True).start()


def serve(near: socket.socket, host: str, there: str, port: int) -> None:
    """One connection; this thread alone enters the namespace, and its sockets belong there."""
    with open(f"/run/netns/{host}") as namespace:
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    with near, socket.create_connection((there, port)) as far:
        back = threading.Thread(target=copy, args=(far, near), daemon=True)
        back.start()
        copy(near, far)
        back.join()


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


if __name__ == "__main__":
    main(sys.argv[1:])
