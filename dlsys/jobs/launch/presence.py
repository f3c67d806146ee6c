"""Writes down where an attempt's workers are, and how long: `places/attempt-N.json` in the run's folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, TypeVar

import ray

from dlsys.jobs.launch.assignment import Assignment
from dlsys.paths import read_json, write_json

# Whoever is killed leaves a file that is no older than this.
_EVERY = 2.0

_Said = TypeVar("_Said")


@dataclass(frozen=True)
class Place:
    """Where an actor is.

    Attributes:
        node: Ray's id of its machine.
        host: the machine's address.
        gpus: the ids of its GPUs on that machine.
    """

    node: str
    host: str
    gpus: tuple[str, ...]


def here() -> Place:
    """The place of the actor that asks."""
    gpus = tuple(str(gpu) for gpu in ray.get_gpu_ids())
    host = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
    return Place(ray.get_runtime_context().get_node_id(), host, gpus)


def tell(assignment: Assignment, rank: int) -> None:
    """Leaves this worker's place for a driver that cannot ask it."""
    folder = assignment.attempt_folder(assignment.paths.failures)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"place-{rank}.json", asdict(here()))


def told(assignment: Assignment) -> list[Place]:
    """The places that workers left, by rank; none while one is missing."""
    folder = assignment.attempt_folder(assignment.paths.failures)
    ranks = range(assignment.workers)
    found = [read_json(folder / f"place-{rank}.json") for rank in ranks]
    if not all(found):
        return []
    return [Place(place["node"], place["host"], tuple(place["gpus"])) for place in found if place]


class Presence:
    """A context that lasts as long as the workers hold their room.

    Args:
        places: of the workers, by rank.
        began: when they got their room; by default now.
    """

    def __init__(self, assignment: Assignment, places: Sequence[Place], began: float | None = None) -> None:
        self._path = assignment.attempt_folder(assignment.paths.places).with_suffix(".json")
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
        self._told = describe(assignment, places, nodes, began or time.time())
        self._due = 0.0

    def __enter__(self) -> Presence:
        self.beat()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._write()

    def beat(self) -> None:
        """To be called often: what the file says is kept true."""
        if time.monotonic() >= self._due:
            self._write()

    def during(self, call: Callable[[], _Said]) -> Callable[[], _Said]:
        """The same function, and a beat whenever it is called."""

        def both() -> _Said:
            self.beat()
            return call()

        return both

    def _write(self) -> None:
        self._due = time.monotonic() + _EVERY
        with suppress(OSError):  # a full disk must not end the run
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            write_json(self._path, self._told | {"until": time.time()})


def describe(
    assignment: Assignment, places: Sequence[Place], nodes: Sequence[dict[str, Any]], began: float
) -> dict[str, Any]:
    """What the file says, but for its end: nodes with their sizes and prices, and each rank's node.

    Args:
        nodes: as Ray lists them.
    """
    rates = read_json(assignment.owner_paths.rates) or {}
    prices = rates.get("prices", {})
    resources = assignment.job.resources
    known = {node["NodeID"]: node for node in nodes}
    found: dict[str, dict[str, Any]] = {}
    for place in places:
        node = known.get(place.node, {})
        labels, total = node.get("Labels", {}), node.get("Resources", {})
        group = labels.get("dlsys/group", "")
        found[place.node] = {
            "name": labels.get("dlsys/node", place.host),
            "group": group,
            "address": place.host,
            "CPU": float(total.get("CPU", 0.0)),
            "GPU": float(total.get("GPU", 0.0)),
            "price": prices.get(group),
        }
    workers = [
        {
            "rank": rank,
            "node": place.node,
            "CPU": float(resources.cpus),
            "GPU": float(resources.gpus),
            "gpus": list(place.gpus),
        }
        for rank, place in enumerate(places)
    ]
    return {"began": began, "currency": rates.get("currency", ""), "nodes": found, "workers": workers}
