"""An `ssh` into namespaces of this machine: a host is a process, and what it sees.

    fake_ssh.py ssh's own arguments

Commands go through `nsenter`; `-N -L` is a forwarder that listens here and connects there. In the folder
FAKE_SSH, `HOST.pid` names the process; a file of a host's name cuts ssh to it off, and `HOST.blind` is a
link to a folder that the host does not see; `calls` gets all arguments.
"""

from __future__ import annotations

import ctypes
import os
import shlex
import socket
import sys
import threading
from contextlib import suppress

CLONE_NEWNET = 0x40000000


def main(words: list[str]) -> None:
    at = words.index("--")
    host, *line = words[at + 1 :]
    folder = os.environ["FAKE_SSH"]
    with open(f"{folder}/calls", "a") as calls:
        calls.write(" ".join(words) + "\n")
    if os.path.exists(f"{folder}/{host}"):
        sys.stderr.write(f"ssh: connect to host {host} port 22: No route to host\n")
        sys.exit(255)
    with open(f"{folder}/{host}.pid") as file:
        pid = file.read()
    if "-L" in words:
        _, local, there, port = words[words.index("-L") + 1].split(":")
        forward(pid, int(local), there, int(port))
    # As sshd does: a shell reads one text.
    text = " ".join(line)
    if os.path.exists(blind := f"{folder}/{host}.blind"):
        text = f"unshare --mount sh -c {shlex.quote(f'mount -t tmpfs none {os.readlink(blind)} && {text}')}"
    inside = ("--net", "--pid", "--mount", "--uts", "--wd=/")
    os.execvp("nsenter", ["nsenter", f"--target={pid}", *inside, "sh", "-c", text])


def forward(pid: str, local: int, there: str, port: int) -> None:
    with socket.create_server(("127.0.0.1", local)) as server:
        while True:
            near, _ = server.accept()
            threading.Thread(target=serve, args=(near, pid, there, port), daemon=True).start()


def serve(near: socket.socket, pid: str, there: str, port: int) -> None:
    """One connection; this thread alone enters the namespace, and its sockets belong there."""
    with open(f"/proc/{pid}/ns/net") as namespace:
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
