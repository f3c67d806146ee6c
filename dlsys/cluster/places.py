"""Where a cluster's files are on the machine that started it, and where its queue answers.

Without the typed files: a client that only knocks at the queue needs to know no more.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlsys.errors import UsageError
from dlsys.paths import NAME, home, read_json, write_json
from dlsys.registry import did_you_mean


@dataclass(frozen=True)
class Endpoint:
    """Where a cluster's queue of jobs answers.

    Attributes:
        url: `http://127.0.0.1:8266`, reachable from here.
        token: what every request carries.
    """

    url: str
    token: str


@dataclass(frozen=True)
class ClusterPaths:
    """The files of one cluster on the machine that started it, or in a folder that its hosts share.

    Attributes:
        root: `<home>/clusters/<name>`.
        host: in a shared folder, the name of the host whose part of the cluster it is; else empty.
    """

    root: Path
    host: str = ""

    @classmethod
    def of(cls, name: str) -> ClusterPaths:
        return cls(home() / "clusters" / name)

    @classmethod
    def all(cls) -> list[ClusterPaths]:
        """Every cluster that was brought up and not down again, by name."""
        folder = home() / "clusters"
        found = sorted(folder.iterdir()) if folder.is_dir() else []
        return [cls(path) for path in found if NAME.fullmatch(path.name) and cls(path).source.exists()]

    @property
    def name(self) -> str:
        return self.root.name

    @property
    def home(self) -> Path:
        """The folder of runs that the cluster was started beside."""
        return self.root.parent.parent

    @property
    def source(self) -> Path:
        """The cluster file's text, with the overrides of `up` already in it."""
        return self.root / "cluster.yaml"

    @property
    def state(self) -> Path:
        """What the provider, or a host's keeper, must remember to find the cluster again."""
        return self.root / (f"state-{self.host}.json" if self.host else "state.json")

    @property
    def mark(self) -> str:
        """What processes of the cluster carry in their environment: hosts may share a table of processes."""
        return f"{self.root} {self.host}".rstrip()

    @property
    def keeper_lock(self) -> Path:
        """Locked by the keeper as long as it lives."""
        return self.root / (f"keeper-{self.host}.lock" if self.host else "keeper.lock")

    @property
    def keeper_log(self) -> Path:
        return self.logs / (f"{self.host}-keeper.log" if self.host else "keeper.log")

    @property
    def desk(self) -> Path:
        """Where the queue of jobs listens, and its process."""
        return self.root / "desk.json"

    @property
    def lock(self) -> Path:
        """Locked while `up` or `down` is at work."""
        return self.root / "lock"

    @property
    def token(self) -> Path:
        """The token of Ray and of the queue, readable by its owner alone."""
        return self.root / "token"

    @property
    def launch(self) -> Path:
        """What the provider's own program was given, and what it keeps."""
        return self.root / "launch"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def make(self) -> None:
        """Makes the folder and the token, readable by their owner alone.

        Raises:
            UsageError: the place is not writable.
        """
        try:
            for folder in (self.root.parent, self.root, self.launch, self.logs):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            handle = os.open(self.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            return
        except OSError as error:
            raise UsageError(
                f"{self.root}: cannot be made: {error.strerror}",
                hint="Clusters are kept in .dlsys here; set DLSYS_HOME to another folder.",
            ) from error
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps every other `up` and `down` of this cluster out.

        Raises:
            UsageError: one is at work.
        """
        with open(self.lock, "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(
                    f"{self.name}: another `dlsys cluster up` or `down` is at work", hint="Wait for it."
                ) from None
            yield

    def read_token(self) -> str:
        return self.token.read_text().strip()

    def read_state(self) -> dict[str, Any]:
        return read_json(self.state) or {}

    def write_state(self, state: dict[str, Any]) -> None:
        write_json(self.state, state)


def choose(name: str | None) -> ClusterPaths:
    """A cluster that was brought up here.

    Args:
        name: its name; None is DLSYS_CLUSTER's, or the only cluster's that is up.

    Raises:
        UsageError: no such cluster, or several.
    """
    known = {paths.name: paths for paths in ClusterPaths.all()}
    name = name or os.environ.get("DLSYS_CLUSTER") or None
    if name is None and len(known) == 1:
        name = next(iter(known))
    if name is None:
        raise UsageError(
            f"which cluster? {'Up: ' + ', '.join(known) if known else 'None is up'}",
            hint="Say --cluster NAME, or start one: dlsys cluster up cluster/two_nodes",
        )
    if name not in known:
        raise UsageError(
            f"no cluster {name!r} is up.{did_you_mean(name, known)}",
            hint=f"Up: {', '.join(known) or 'none'}. Start one: dlsys cluster up FILE",
        )
    return known[name]
