"""A submitted command with several workers: started as torchrun starts it, one process a worker.

The driver of such a job runs this. It makes room by a placement group, starts the command in an actor
on each bundle, and ends all ranks when one fails. Every command has a guard (`launch/guard.py`), so
that nothing is left when the driver, an actor or a node is killed.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dlsys.errors import Interrupted, RunError
from dlsys.jobs import secrets
from dlsys.jobs.desk.book import Job
from dlsys.jobs.launch.beacon import Beacon, beacon_of
from dlsys.jobs.launch.guarded import Guarded, Shown, how
from dlsys.jobs.launch.presence import Place, here
from dlsys.jobs.launch.ray_actors import (
    await_room,
    in_ranks,
    variables,
    visible_gpus,
    wait_for,
)
from dlsys.jobs.launch.ray_session import join
from dlsys.jobs.launch.torchrun import told_by_torchrun
from dlsys.jobs.mirror.node import Mirror
from dlsys.paths import RunPaths, node_home, write_json
from dlsys.plan.room import Bundle

# From SIGTERM to SIGKILL. A cluster gives a stopped job's driver 20 s (RAY_JOB_STOP_WAIT_TIME_S).
_GRACE = 15.0
_LAST = 3.0
# How long workers wait for a lost node to come back.
_ROOM_WITHIN = 600.0
_LOOK = 0.1
# Of the actor's own environment, what would make a Ray in the command take itself for the actor.
_OF_THE_ACTOR = ("RAY_JOB_ID", "RAY_RAYLET_PID")


def run(paths: RunPaths, job: Job, address: str) -> None:
    """Runs a job's command on all its workers, to the end of the last one.

    Raises:
        RunError: a rank failed; the error's exit code is the rank's.
        Interrupted: SIGTERM or SIGINT arrived, and every rank has ended.
    """
    received: list[int] = []
    mirror = Mirror.of(paths)
    mirror.begin()
    join(address)
    for number in (signal.SIGTERM, signal.SIGINT):  # Ray takes them for itself
        signal.signal(number, lambda number, frame: received.append(number))

    def watch() -> None:
        if received:
            raise Interrupted(exit_code=128 + received[0])

    # Ray refuses a bundle of nothing; a byte is on every node.
    group = placement_group([bundle or {"memory": 1} for bundle in job.bundles])
    actors: list[Any] = []
    try:
        await_room(group, watch, _ROOM_WITHIN)
        actors = [_actor(group, index, bundle) for index, bundle in enumerate(job.bundles)]
        with beacon_of(paths.root, mirror.store) as beacon:
            places = wait_for([actor.place.remote(beacon) for actor in actors], watch)
        places, actors = in_ranks(places, actors)
        show = Shown(paths.log(0), sys.stdout.buffer).show
        _start(actors, places, paths, mirror.store, job, watch)
        failure = _see_through(actors, places, lambda: bool(received), show)
        with suppress(RunError):  # the command has ended as it did, also where its last lines cannot be had
            mirror.exchange()
        show()
        watch()
        if failure is not None:
            write_json(paths.outcome, {"status": "FAILED", "cause": str(failure)})
            raise failure
    finally:
        for actor in actors:
            ray.kill(actor)
        remove_placement_group(group)
        ray.shutdown()
        if unsent := mirror.end(_GRACE):
            sys.stderr.write(f"{unsent}\n")


def _actor(group: Any, index: int, bundle: Bundle) -> Any:
    return (
        ray.remote(_Rank)
        .options(
            num_cpus=bundle.get("CPU", 0.0),
            num_gpus=bundle.get("GPU", 0.0),
            max_concurrency=2,  # `end` while `code` waits
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
        )
        .remote()
    )


def _start(
    actors: list[Any],
    places: list[Place],
    paths: RunPaths,
    store: str,
    job: Job,
    watch: Callable[[], None],
) -> None:
    port = wait_for([actors[0].free_port.remote()], watch)[0]
    # Elsewhere there is no file to read them from; a call's arguments are written down nowhere.
    kept = secrets.read(paths.secrets) if store else {}
    starts = []
    for rank, actor in enumerate(actors):
        cpus = job.bundles[rank].get("CPU", 1.0)
        told = told_by_torchrun(
            variables(places, rank, port), job.env, run=job.id, cpus=cpus, restarts=0, most=0
        )
        told |= {
            "CUDA_VISIBLE_DEVICES": ",".join(visible_gpus(places, rank)),
            "RAY_ADDRESS": os.environ["RAY_ADDRESS"],
        }
        starts.append(actor.start.remote(job.command, paths, store, rank, told, kept))
    wait_for(starts, watch)


def _see_through(
    actors: list[Any], places: list[Place], asked: Callable[[], bool], show: Callable[[], None]
) -> RunError | None:
    """Waits for every rank; the first failure ends the others, and so does being asked to."""
    waiting = {actor.code.remote(): rank for rank, actor in enumerate(actors)}
    failure: RunError | None = None
    deadline = float("inf")
    while waiting and time.monotonic() < deadline:
        done, _ = ray.wait(list(waiting), timeout=_LOOK)
        show()
        for call in done:
            rank = waiting.pop(call)
            failure = failure or _judged(call, f"rank {rank} on {places[rank].host}")
        if (failure or asked()) and deadline == float("inf"):
            deadline = time.monotonic() + _GRACE + _LAST
            for rank in waiting.values():
                actors[rank].end.remote(_GRACE)
    return failure


def _judged(call: Any, who: str) -> RunError | None:
    """What is wrong with how a rank ended, with the exit code that the job has for it."""
    try:
        code = ray.get(call)
    except RayError:
        return RunError(f"{who} was lost: its worker or its node died")
    if code is None:
        return RunError(f"{who} {how(code)}")
    if code == 0:
        return None
    failure = RunError(f"{who} {how(code)}")
    failure.exit_code = code if code > 0 else 128 - code
    return failure


class _Rank:
    """An actor with one rank's command."""

    def place(self, beacon: Beacon) -> Place:
        found = here()
        beacon.look(found.host)
        return found

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("", 0))
            return int(probe.getsockname()[1])

    def start(
        self,
        command: list[str],
        paths: RunPaths,
        store: str,
        rank: int,
        told: dict[str, str],
        kept: dict[str, str],
    ) -> None:
        home = node_home() if store else None
        paths = paths.under(home) if home else paths
        self._mirror = Mirror(paths, store)
        self._mirror.join(paths, rank)
        secrets.enter(paths.secrets)
        os.environ.update(kept)
        own = {key: value for key, value in os.environ.items() if key not in _OF_THE_ACTOR}
        self._guarded = Guarded(command, paths.log(rank), {**own, **told})

    def code(self) -> int | None:
        """The command's exit code, once all of it has ended; None where its guard was killed."""
        code = self._guarded.code()
        with suppress(RunError):
            self._mirror.leave()
        return code

    def end(self, grace: float) -> None:
        self._guarded.end(grace, signal.SIGTERM)
