"""Programs of other systems: run with their errors translated, and kept open as tunnels."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from dlsys.errors import RunError, UsageError

_TAIL = 12
# A step of a long command as Ray's launcher prints it, `[2/7] Processing file mounts`, under colours.
_STEP = re.compile(r"\[\d+(?:-\d+)?/\d+\].*")
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


def find(program: str, mend: str) -> str:
    """The program's path: the one beside this Python, else the first on PATH.

    Raises:
        UsageError: there is none; `mend` says how to get it.
    """
    found = shutil.which(program, path=os.path.dirname(sys.executable)) or shutil.which(program)
    if found is None:
        raise UsageError(f"{program} is not on this machine's PATH", hint=mend)
    return found


def run(
    command: Sequence[str],
    *,
    stdin: str = "",
    timeout: float = 120,
    hints: Mapping[str, str] | None = None,
) -> str:
    """A short command's standard output.

    Args:
        command: the program's path and its arguments; no shell reads them.
        stdin: what it is given to read.
        timeout: seconds.
        hints: how to mend what its error output may say, by a pattern found in that output.

    Raises:
        RunError: it failed, in its own words.
    """
    try:
        done = subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise RunError(f"{_name(command)}: no answer in {timeout:.0f} s") from error
    except OSError as error:
        raise RunError(f"{command[0]}: cannot be run: {error.strerror}") from error
    if done.returncode:
        words = _tail(done.stderr or done.stdout) or f"ended with exit code {done.returncode}"
        hint = next((mend for found, mend in (hints or {}).items() if re.search(found, words)), "")
        raise RunError(f"{_name(command)}: {words}", hint=hint)
    return done.stdout


def follow(
    command: Sequence[str], log: Path, say: Callable[[str], None], *, env: Mapping[str, str] | None = None
) -> None:
    """Runs a long command: its output goes to a log, and its steps are said.

    Args:
        command: the program's path and its arguments; no shell reads them.
        log: replaced by this run's output.
        say: told the lines that name a step, `[2/7] …`.
        env: variables besides this process's own.

    Raises:
        RunError: it failed; its last lines, and where the rest is.
    """
    with (
        log.open("w", encoding="utf-8") as kept,
        _started(command, subprocess.PIPE, {**os.environ, **(env or {})}) as process,
    ):
        assert process.stdout is not None, "it was asked for"
        for raw in process.stdout:
            line = _COLOUR.sub("", raw.decode("utf-8", errors="replace"))
            kept.write(line)
            kept.flush()
            if step := _STEP.search(line):
                say(step[0].rstrip())
        process.wait()
    if process.returncode:
        words = _tail(log.read_text(encoding="utf-8")) or f"ended with exit code {process.returncode}"
        raise RunError(f"{_name(command)}: {words}", hint=f"Its whole output is in {log}.")


@contextlib.contextmanager
def tunnel(command: Callable[[int], Sequence[str]], *, patience: float = 60) -> Iterator[int]:
    """A program that forwards a free local port, for as long as the context lasts.

    The port counts as open when the program itself listens on it: another process on this machine
    that is quicker to take it gets no connection, and so no token, of ours.

    Args:
        command: from the port to the program and its arguments.
        patience: seconds until it must listen.

    Raises:
        RunError: it ended, in its own words, or does not listen.
    """
    port = free_port()
    with tempfile.TemporaryFile() as words, _started(command(port), words, None) as process:
        deadline = time.monotonic() + patience
        while not _listens(process.pid, port):
            if process.poll() is not None or time.monotonic() > deadline:
                words.seek(0)
                said = _tail(words.read().decode("utf-8", errors="replace")) or "it does not listen"
                raise RunError(f"{_name(command(port))}: {said}")
            time.sleep(0.05)
        yield port


def ssh_command(
    *,
    user: str | None = None,
    keys: Sequence[Path] = (),
    port: int | None = None,
    known_hosts: Path | None = None,
) -> list[str]:
    """ssh and its options, before the host; it asks nothing, and ends when the host is gone.

    Args:
        user: who logs in; this and the others by default as ssh is set up.
        keys: private keys to try, in order.
        port: of the ssh server.
        known_hosts: where the host's key is kept at the first visit, and looked up at all others.
    """
    options = {
        "BatchMode": "yes",
        "ConnectTimeout": "20",
        "ServerAliveInterval": "15",
        # A shared connection would outlive its command, and hold a tunnel's port open.
        "ControlMaster": "no",
        "ControlPath": "none",
        **({"IdentitiesOnly": "yes"} if keys else {}),
    }
    if known_hosts is not None:
        options |= {"StrictHostKeyChecking": "accept-new", "UserKnownHostsFile": f'"{known_hosts}"'}
    given = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    given += [word for key in keys for word in ("-i", str(key))]
    given += ["-l", user] if user else []
    given += ["-p", str(port)] if port else []
    return [find("ssh", "Install OpenSSH's client."), *given]


@contextlib.contextmanager
def ssh_tunnel(ssh: Sequence[str], host: str, port: int) -> Iterator[int]:
    """A local port that leads to a port on the loopback of a host.

    Args:
        ssh: what `ssh_command` gives.
        host: the host, as ssh takes it.
        port: the port there.

    Raises:
        RunError: ssh does not get there, in its own words.
    """

    def command(local: int) -> list[str]:
        way = f"127.0.0.1:{local}:127.0.0.1:{port}"
        return [*ssh, "-N", "-T", "-o", "ExitOnForwardFailure=yes", "-L", way, "--", host]

    with contextlib.ExitStack() as stack:
        try:
            opened = stack.enter_context(tunnel(command))
        except RunError as error:
            raise RunError(
                f"no way to {host} by ssh: {error}", hint=f"This must work by itself: ssh {host} true"
            ) from error
        yield opened


def free_port() -> int:
    """A port of this machine's loopback that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def answers(url: str) -> bool:
    """Whether something speaks HTTP at a local address, whatever it says."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        direct.open(url, timeout=5).close()
    except urllib.error.HTTPError:
        return True
    except (OSError, http.client.HTTPException):
        return False
    return True


@contextlib.contextmanager
def _started(
    command: Sequence[str], output: IO[bytes] | int, env: Mapping[str, str] | None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, which is ended with the context."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=env,
            start_new_session=True,
        )
    except OSError as error:
        raise RunError(f"{command[0]}: cannot be run: {error.strerror}") from error
    with process:
        try:
            yield process
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)


def _listens(pid: int, port: int) -> bool:
    """Whether a process, or one that it started, listens on a port."""
    try:
        root = psutil.Process(pid)
        sockets = [at for one in (root, *root.children(recursive=True)) for at in one.net_connections("tcp")]
    except psutil.Error:
        return False
    return any(at.status == psutil.CONN_LISTEN and at.laddr.port == port for at in sockets)


def _name(command: Sequence[str]) -> str:
    """`kubectl apply`: the program, and its first argument that is a word."""
    verb = next((word for word in command[1:] if re.fullmatch(r"[a-z][a-z-]*", word)), "")
    return f"{os.path.basename(command[0])} {verb}".rstrip()


def _tail(text: str) -> str:
    """The last lines; of a Python traceback, what was raised."""
    _, traceback, raised = text.rpartition("Traceback (most recent call last):\n")
    lines = [line.rstrip() for line in raised.splitlines() if line.strip()]
    if traceback:
        lines = [line for line in lines if not line.startswith(" ")]
    return "\n".join(lines[-_TAIL:])
