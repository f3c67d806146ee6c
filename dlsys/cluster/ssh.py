"""Clusters of machines that one has, reached by ssh.

Each host has a keeper of its own (`dlsys.cluster.keeper`) for its one Ray node. They and the queue of
jobs meet in a folder below the cluster's `storage`, which all hosts see; this machine need not see it.
The queue and Ray's dashboard listen on the head's loopback alone.
"""

from __future__ import annotations

import json
import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from dlsys import __version__
from dlsys.cluster.commands import run, ssh_command, ssh_tunnel
from dlsys.cluster.places import ClusterPaths, Endpoint
from dlsys.cluster.provider import Finding, cluster_text
from dlsys.errors import DlsysError, RunError, UsageError
from dlsys.spec.cluster.providers import Ssh
from dlsys.spec.load import load_cluster

# Seconds: a host's keeper gives up before that.
_UP_WITHIN = 240.0
# At most so many connections at a time.
_AT_ONCE = 32
_CLOCKS_WITHIN = 3.0
_FREE = 2e9
_HINTS = {
    "No module named|not found|No such file": "python must name a Python there that has dlsys.",
    "Host key verification failed": "Log in once by hand, and look at the host's key.",
    "Permission denied": "`user` and `key` must let you in without a password.",
    "": "",
}

Answers = dict[str, Any]


class SshProvider:
    """A cluster of machines that are there already.

    Args:
        cluster: what it is to be.
        paths: its files on this machine.
    """

    def __init__(self, cluster: Ssh, paths: ClusterPaths) -> None:
        self._cluster = cluster
        self._paths = paths
        self._folder = str(PurePosixPath(cluster.storage, "clusters", cluster.name))
        self._head, *self._others = _hosts(cluster)

    def render(self) -> dict[str, str]:
        lines = {
            host: shlex.join(self._command(host, "up", self._folder, host))
            for host in (self._head, *self._others)
        }
        first = shlex.join(self._command(self._head, "prepare", self._folder))
        return {
            "cluster.yaml": cluster_text(self._cluster),
            **lines,
            self._head: f"{first}  # reads cluster.yaml and the token\n{lines[self._head]}",
        }

    def up(self, say: Callable[[str], None]) -> None:
        self._paths.make()
        with self._paths.locked():
            before = self._known() or self._cluster
            self._check_fixed(before)
            seen, lost = self._look()
            if blind := [host for host, found in seen.items() if not found["sees"]]:
                raise UsageError(
                    f"storage: {', '.join(blind)} do{'es' if len(blind) == 1 else ''} not see what the head "
                    f"{self._head} writes into {self._cluster.storage}",
                    hint="Mount one folder there on all hosts, writable by the same user.",
                )
            text = cluster_text(self._cluster)
            given = json.dumps({"cluster": text, "token": self._paths.read_token()})
            self._ask(self._head, "prepare", self._folder, stdin=given)
            self._paths.source.write_text(text)
            self._start(self._head, say)
            started = self._each([host for host in self._others if host in seen], self._start, say)
            gone = [host for host in _hosts(before) if host not in (self._head, *self._others)]
            ended = self._each(gone, self._end, say)
        self._raise(lost | _failures(started) | _failures(ended))

    def down(self, say: Callable[[str], None]) -> None:
        if not self._paths.root.exists():
            return
        known = self._known()
        if known is not None and known != self._cluster:
            # Its file was changed since: what stands is what is to go.
            SshProvider(known, self._paths).down(say)
            return
        with self._paths.locked():
            hosts = [self._head, *self._others]
            failed = _failures(self._each(hosts, self._end, say))
            if reached := [host for host in hosts if host not in failed]:
                # Also the sign for the keepers of hosts that cannot be reached now.
                self._ask(reached[0], "remove", self._folder)
            self._raise(failed)
            shutil.rmtree(self._paths.root)
        say(f"{self._paths.name} is down; runs in {self._cluster.storage} are kept")

    def alive(self) -> bool:
        with suppress(DlsysError):
            return (
                self._paths.source.exists()
                and self._ask(self._head, "state", self._folder, self._head)["keeper"]
            )
        return False

    @contextmanager
    def connect(self) -> Iterator[Endpoint]:
        desk = self._paths.read_state().get("port")
        if not desk:
            raise RunError(
                f"cluster {self._paths.name} is not up, or was brought up from elsewhere",
                hint="Bring it up: dlsys cluster up FILE",
            )
        with ssh_tunnel(self._ssh(), self._head, desk) as port:
            yield Endpoint(f"http://127.0.0.1:{port}", self._paths.read_token())

    def doctor(self) -> Iterator[Finding]:
        try:
            seen, lost = self._look()
        except DlsysError as error:
            yield Finding(False, str(error), error.hint)
            return
        for found in lost.values():
            yield Finding(False, str(found), found.hint)
        for host, answers in seen.items():
            yield from self._findings(host, answers, seen[self._head])
        if self._paths.source.exists():
            states = self._each(list(seen), lambda host: self._ask(host, "state", self._folder, host))
            for host, state in states.items():
                if isinstance(state, DlsysError):
                    yield Finding(False, str(state), state.hint)
                    continue
                good = state["keeper"] and all(state["raylets"]) and not state["error"]
                what = state["error"] or f"its keeper {'lives' if state['keeper'] else 'is gone'}"
                mend = f"dlsys cluster up again; logs: {self._folder}/logs on the hosts"
                yield Finding(good, f"{host}: {what}", "" if good else mend)

    def _findings(self, host: str, found: Answers, head: Answers) -> Iterator[Finding]:
        yield Finding(True, f"{host}: ssh works")
        for what, wanted in (("dlsys", __version__), ("ray", version("ray"))):
            good = found[what] == wanted
            mend = "" if good else f"Install {what} {wanted} there, or {found[what]} here."
            yield Finding(good, f"{host}: {what} {found[what]}" + ("" if good else f", here {wanted}"), mend)
        storage = self._cluster.storage
        what = f"{host}: {'sees' if found['sees'] else 'does not see'} the head's {storage}, to write there"
        yield Finding(found["sees"], what, "" if found["sees"] else "Mount one folder there on all hosts.")
        # Each clock is known up to the time that the question took.
        late, early = found["low"] - head["high"], head["low"] - found["high"]
        good = max(late, early) <= _CLOCKS_WITHIN
        what = "agrees with" if good else f"is off by {max(late, early):.0f} s from"
        yield Finding(
            good, f"{host}: its clock {what} the head's", "" if good else "Let both follow an NTP server."
        )
        good = found["free"] > _FREE
        yield Finding(
            good, f"{host}: /tmp has {found['free'] / 1e9:.0f} GB free", "" if good else "Ray needs 2 GB."
        )

    def _look(self) -> tuple[dict[str, Answers], dict[str, DlsysError]]:
        """What each host says of itself, and the errors of those that say nothing.

        Raises:
            DlsysError: the head is among these.
        """
        place = self._ask(self._head, "probe", self._cluster.storage, f".dlsys-{secrets.token_hex(16)}")

        def look(host: str) -> Answers:
            begins = time.time()
            found = self._ask(host, "look", place)
            return {**found, "low": found["time"] - time.time(), "high": found["time"] - begins}

        try:
            answers = self._each([self._head, *self._others], look)
        finally:
            with suppress(DlsysError):
                self._ask(self._head, "clear", place)
        lost = _failures(answers)
        if self._head in lost:
            raise lost[self._head]
        return {host: found for host, found in answers.items() if host not in lost}, lost

    def _start(self, host: str, say: Callable[[str], None]) -> None:
        found = self._ask(host, "up", self._folder, host, timeout=_UP_WITHIN)
        if host == self._head:
            places = {"address": found["address"], "dashboard": f"{found['dashboard']} of {host}"}
            self._paths.write_state({**places, "port": found["desk"]})
        say(f"node {host} is up")

    def _end(self, host: str, say: Callable[[str], None]) -> None:
        self._ask(host, "down", self._folder, host)
        say(f"node {host} is down")

    def _each(self, hosts: Sequence[str], ask: Callable[..., Any], *more: Any) -> dict[str, Any]:
        """Asks all hosts at the same time; of each, the answer or the error."""

        def safely(host: str) -> Any:
            try:
                return ask(host, *more)
            except DlsysError as error:
                return error

        if not hosts:
            return {}
        with ThreadPoolExecutor(min(len(hosts), _AT_ONCE)) as pool:
            return dict(zip(hosts, pool.map(safely, hosts), strict=True))

    def _ask(self, host: str, verb: str, *arguments: str, stdin: str = "", timeout: float = 120) -> Any:
        try:
            said = run(self._command(host, verb, *arguments), stdin=stdin, timeout=timeout, hints=_HINTS)
            return json.loads(said.splitlines()[-1])
        except RunError as error:
            raise RunError(f"{host}: {error}", hint=error.hint) from error
        except (ValueError, IndexError) as error:
            raise RunError(f"{host}: {verb} gave no answer, but {said[-200:]!r}") from error

    def _ssh(self) -> list[str]:
        key = self._cluster.key
        keys = [Path(key).expanduser()] if key else []
        return ssh_command(user=self._cluster.user, keys=keys, port=self._cluster.ssh_port)

    def _command(self, host: str, *arguments: str) -> list[str]:
        # A shell reads it there.
        line = shlex.join([self._cluster.python, "-P", "-m", "dlsys.cluster.host", *arguments])
        return [*self._ssh(), "-T", "--", host, line]

    def _known(self) -> Ssh | None:
        """The cluster as it was brought up."""
        if not self._paths.source.exists():
            return None
        found = load_cluster(self._paths.source).cluster
        assert isinstance(found, Ssh)
        return found

    def _check_fixed(self, before: Ssh) -> None:
        """Refuses what cannot change while the cluster is up.

        Raises:
            UsageError: something of that differs now.
        """
        fixed = [key for key in ("storage", "port") if getattr(before, key) != getattr(self._cluster, key)]
        if before.nodes[0] != self._cluster.nodes[0]:
            fixed.append("nodes.0")
        if fixed:
            raise UsageError(
                f"{self._paths.name} is up: {', '.join(fixed)} cannot change while it is",
                hint=f"dlsys cluster down {self._paths.name}, then up again.",
            )

    def _raise(self, failed: dict[str, DlsysError]) -> None:
        """One error of several hosts'."""
        if failed:
            hints = dict.fromkeys(error.hint for error in failed.values() if error.hint)
            raise RunError("\n".join(map(str, failed.values())), hint="\n".join(hints))


def _hosts(cluster: Ssh) -> list[str]:
    return [host for group in cluster.nodes for host in group.hosts]


def _failures(answers: dict[str, Any]) -> dict[str, DlsysError]:
    return {host: found for host, found in answers.items() if isinstance(found, DlsysError)}
