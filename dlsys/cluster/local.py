"""Several Ray nodes on this machine, for real: separate raylets, with own resources, ports and folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dlsys import processes
from dlsys.cluster.machine import bring_up, keeper_of, take_down
from dlsys.cluster.places import ClusterPaths, Endpoint
from dlsys.cluster.provider import Finding
from dlsys.errors import RunError, UsageError
from dlsys.spec import yaml
from dlsys.spec.cluster.providers import Local
from dlsys.spec.load import load_cluster


class LocalProvider:
    """A cluster on this machine; its keeper does the work.

    Args:
        cluster: what it is to be.
        paths: its files on this machine.
    """

    def __init__(self, cluster: Local, paths: ClusterPaths) -> None:
        self._cluster = cluster
        self._paths = paths

    def render(self) -> dict[str, str]:
        return {"cluster.yaml": yaml.dump(self._cluster.model_dump(mode="json"))}

    def up(self, say: Callable[[str], None]) -> None:
        self._paths.make()
        with self._paths.locked():
            self._write()
            bring_up(self._paths, sum(group.count for group in self._cluster.nodes), say, desk=True)

    def down(self, say: Callable[[str], None]) -> None:
        if not self._paths.root.exists():
            return
        with self._paths.locked():
            take_down(self._paths)
            shutil.rmtree(self._paths.root)
        say(f"{self._paths.name} is down; its jobs and runs are kept")

    def alive(self) -> bool:
        return keeper_of(self._paths) is not None

    @contextmanager
    def connect(self) -> Iterator[Endpoint]:
        url = self._paths.read_state().get("desk")
        if not url or not self._paths.token.exists():
            raise RunError(
                f"cluster {self._paths.name} is not up", hint=f"dlsys cluster up {self._paths.name}"
            )
        yield Endpoint(url, self._paths.read_token())

    def doctor(self) -> Iterator[Finding]:
        cores = len(os.sched_getaffinity(0))
        asked = sum(node.cpus * node.count for node in self._cluster.nodes)
        yield Finding(
            asked <= cores,
            f"the nodes say they have {asked:g} CPUs, this machine has {cores}",
            "" if asked <= cores else "Workers will share cores; give the nodes fewer.",
        )
        free = shutil.disk_usage("/tmp").free / 1e9
        yield Finding(free > 2, f"/tmp has {free:.0f} GB free", "" if free > 2 else "Ray needs 2 GB or more.")
        state = self._paths.read_state()
        if not state:
            yield Finding(True, "the cluster is not up", f"dlsys cluster up {self._paths.name}")
            return
        keeper = keeper_of(self._paths) is not None
        yield Finding(
            keeper,
            f"its keeper {'lives' if keeper else 'is gone'}",
            "" if keeper else "dlsys cluster up again",
        )
        if error := state.get("error"):
            yield Finding(False, error, f"See the logs in {self._paths.logs}")
        for node in state.get("nodes", ()):
            lives = bool(node["raylet"]) and processes.lives(node["raylet"])
            what = f"node {node['name']}: its raylet {'lives' if lives else 'is gone'}"
            yield Finding(lives, what, "" if lives else "The keeper starts it again; look at its log")

    def _write(self) -> None:
        """Writes what the cluster is to be, if that is new; the keeper takes it up.

        Raises:
            UsageError: something changed that cannot change while it runs.
        """
        text = self.render()["cluster.yaml"]
        if self._paths.source.exists() and keeper_of(self._paths):
            before = load_cluster(self._paths.source).cluster
            fixed = ("provider", "storage", "head_state")
            changed = [key for key in fixed if getattr(before, key) != getattr(self._cluster, key)]
            if before.nodes[0] != self._cluster.nodes[0]:
                changed.append("nodes.0")
            if changed:
                raise UsageError(
                    f"{self._paths.name} is up: {', '.join(changed)} cannot change while it is",
                    hint=f"dlsys cluster down {self._paths.name}, then up again.",
                )
            if before == self._cluster:
                return
        beside = self._paths.source.with_suffix(".new")
        beside.write_text(text)
        beside.replace(self._paths.source)
