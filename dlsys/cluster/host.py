"""What `dlsys.cluster.ssh` runs on the hosts of a cluster.

    python -m dlsys.cluster.host VERB ARGUMENT...

A verb's answer is the last line of standard output, as JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from dlsys import __version__
from dlsys.cluster.machine import bring_up, keeper_of, take_down
from dlsys.cluster.places import ClusterPaths
from dlsys.errors import DlsysError, UsageError
from dlsys.paths import read_json
from dlsys.spec.cluster.providers import Ssh, node_name
from dlsys.spec.load import load_cluster


def probe(storage: str, name: str) -> str:
    """Leaves a file of this name, which nobody can guess, in the storage or where that is to be.

    Returns:
        Its path.
    """
    folder = Path(storage)
    place = next(each for each in (folder, *folder.parents) if each.is_dir())
    try:
        (place / name).touch(mode=0o600)
    except OSError as error:
        raise UsageError(
            f"storage: {place} cannot be written: {error.strerror}",
            hint=f"Make {storage}, a folder of yours that all hosts see.",
        ) from error
    return str(place / name)


def clear(place: str) -> None:
    """Removes what `probe` left."""
    Path(place).unlink(missing_ok=True)


def look(place: str) -> dict[str, Any]:
    """Whether this host sees what the head's `probe` left, and what else a cluster needs."""
    return {
        "sees": os.path.exists(place) and os.access(os.path.dirname(place), os.R_OK | os.W_OK | os.X_OK),
        "dlsys": __version__,
        "ray": version("ray"),
        "free": shutil.disk_usage("/tmp").free,
        "time": time.time(),
    }


def prepare(folder: str) -> None:
    """Writes the cluster's folder: standard input is its file and its token."""
    given = json.load(sys.stdin)
    paths = ClusterPaths(Path(folder))
    paths.root.parent.mkdir(parents=True, exist_ok=True)
    paths.root.mkdir(mode=0o700, exist_ok=True)
    info = paths.root.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
        raise UsageError(
            f"{folder}: is not a folder of yours", hint="Give the cluster another name or storage."
        )
    if paths.token.exists() and paths.token.read_text() != given["token"]:
        raise UsageError(
            f"{folder}: a cluster of this name was brought up from elsewhere",
            hint="Take another name; or if it is nobody's any more, remove that folder on the head.",
        )
    paths.root.chmod(0o700)
    paths.logs.mkdir(mode=0o700, exist_ok=True)
    # An unchanged file keeps its time: the keepers have it already.
    for path, text in ((paths.token, given["token"]), (paths.source, given["cluster"])):
        if not path.exists() or path.read_text() != text:
            beside = path.with_suffix(".new")
            beside.write_text(text)
            beside.replace(path)


def up(folder: str, host: str) -> dict[str, Any]:
    """Brings this host's part up; where it is."""
    paths = ClusterPaths(Path(folder), node_name(host))
    cluster = load_cluster(paths.source).cluster
    assert isinstance(cluster, Ssh)
    is_head = host == cluster.nodes[0].hosts[0]
    bring_up(paths, 1, lambda line: None, desk=is_head)
    return _found(paths)


def state(folder: str, host: str) -> dict[str, Any]:
    """How this host's part stands."""
    return _found(ClusterPaths(Path(folder), node_name(host)))


def down(folder: str, host: str) -> None:
    """Ends this host's part."""
    take_down(ClusterPaths(Path(folder), node_name(host)))


def remove(folder: str) -> None:
    """Removes the cluster's folder."""
    paths = ClusterPaths(Path(folder))
    paths.token.unlink(missing_ok=True)
    # Over NFS, what a dying process still holds open cannot be removed yet.
    shutil.rmtree(paths.root, ignore_errors=True)


def _found(paths: ClusterPaths) -> dict[str, Any]:
    known = paths.read_state()
    return {
        "keeper": keeper_of(paths) is not None,
        "address": known.get("address", ""),
        "dashboard": known.get("dashboard", ""),
        "error": known.get("error", ""),
        "raylets": [node["raylet"] for node in known.get("nodes", ())],
        "desk": (read_json(paths.desk) or {}).get("port"),
    }


def main() -> None:
    verbs: dict[str, Callable[..., Any]] = {
        each.__name__: each for each in (probe, clear, look, prepare, up, state, down, remove)
    }
    os.umask(0o077)
    try:
        answer = verbs[sys.argv[1]](*sys.argv[2:])
    except DlsysError as error:
        sys.exit(f"{error}\n{error.hint}".strip())
    sys.stdout.write(f"\n{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
