"""A script's workers on a cluster: its command in an actor on each bundle of a placement group.

Every command has a guard (`guard.py`), so that nothing is left when the driver, an actor or a node is killed.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from dlsys.errors import RunError, UsageError
from dlsys.jobs import secrets
from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.launch.beacon import Beacon, beacon_of
from dlsys.jobs.launch.presence import Place, Presence, here
from dlsys.jobs.launch.ray_actors import await_room, in_ranks, variables, visible_gpus, wait_for
from dlsys.jobs.launch.script import End, Given, Watched, program, reserved_port
from dlsys.jobs.launch.torchrun import told_by_torchrun
from dlsys.jobs.mirror.node import Mirror
from dlsys.spec.script.job import ScriptJob
from dlsys.track.address import sqlite_path

# How long workers wait for a lost node to come back.
_ROOM_WITHIN = 600.0
# Of the actor's own environment, what would make a Ray in the command take itself for the actor.
_OF_THE_ACTOR = ("RAY_JOB_ID", "RAY_RAYLET_PID")


@contextmanager
def started(
    assignment: Assignment, job: ScriptJob, wait: Callable[[], None], given: Given, mirror: Mirror
) -> Iterator[RayRanks]:
    """The command on all workers of a placement group of their own; nothing is left after the context.

    Args:
        wait: called several times a second; raises to end the waiting.
        given: waits for the run in MLflow; the variables that hand it over.
        mirror: the driver's.

    Raises:
        RunError: the workers found no room.
        UsageError: a node does not see the run's folder, or has no such program.
        ray.exceptions.RayError: a worker died before its command was started.
    """
    group = placement_group(job.resources.bundles)
    actors: list[Any] = []
    try:
        await_room(group, wait, _ROOM_WITHIN)
        began = time.time()
        actors = [
            ray.remote(_Rank)
            .options(
                num_cpus=bundle.get("CPU", 0.0),
                num_gpus=bundle.get("GPU", 0.0),
                max_concurrency=2,  # `end` while `wait` waits
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, index),
            )
            .remote()
            for index, bundle in enumerate(job.resources.bundles)
        ]
        with beacon_of(assignment.paths.root, assignment.store) as beacon:
            places = wait_for([actor.place.remote(beacon) for actor in actors], wait)
        handed = given()
        seen = _seeing(handed["MLFLOW_TRACKING_URI"], places, actors, wait)
        places, actors = in_ranks(places, actors, first=seen)
        blind = [rank for rank, place in enumerate(places) if place.node not in seen]
        if blind:
            _tell_blind(blind, places, handed["MLFLOW_TRACKING_URI"], job)
        with Presence(assignment, places, began) as presence:
            calls = _start(actors, places, assignment, job, handed, blind, wait)
            yield RayRanks(assignment, calls, actors, places, presence, mirror)
    finally:
        for actor in actors:
            ray.kill(actor)
        with suppress(Exception):  # a cluster that is gone has no group either
            remove_placement_group(group)


def _seeing(uri: str, places: list[Place], actors: list[Any], wait: Callable[[], None]) -> set[str]:
    """The nodes that can write to an MLflow store: to a server all, to a file those that see it."""
    file = sqlite_path(uri)
    if file is None:
        return {place.node for place in places}
    with Beacon(file.parent) as beacon:
        told = wait_for([actor.sees.remote(beacon) for actor in actors], wait)
    return {place.node for place, sees in zip(places, told, strict=True) if sees}


def _tell_blind(blind: list[int], places: list[Place], uri: str, job: ScriptJob) -> None:
    """Says which ranks are handed no run of MLflow's.

    Raises:
        UsageError: none is, and the job expects figures.
    """
    who = ", ".join(f"rank {rank} on {places[rank].host}" for rank in blind)
    text = f"MLflow's store is a file, {sqlite_path(uri)}, which is not seen by {who}"
    mend = "Name a tracking server, by tracking.uri or by MLFLOW_TRACKING_URI where you submit."
    if job.expect and len(blind) == len(places):
        raise UsageError(f"{text}: no figure could be held against `expect`", hint=mend)
    sys.stderr.write(f"{text}: what is logged there is in no run. {mend}\n")
    sys.stderr.flush()


def _start(
    actors: list[Any],
    places: list[Place],
    assignment: Assignment,
    job: ScriptJob,
    handed: dict[str, str],
    blind: list[int],
    wait: Callable[[], None],
) -> list[Any]:
    """Starts every rank; the calls that come back when its command has ended."""
    port = wait_for([actors[0].reserve.remote()], wait)[0]
    # Elsewhere there is no file to read them from; a call's arguments are written down nowhere.
    kept = secrets.read(assignment.paths.secrets) if assignment.store else {}
    starts = []
    for rank, actor in enumerate(actors):
        told = told_by_torchrun(
            variables(places, rank, port),
            job.env,
            run=assignment.paths.id,
            cpus=job.resources.cpus,
            restarts=assignment.attempt - 1,
            most=job.failure.retries,
        )
        told |= {} if rank in blind else handed
        told |= {
            "CUDA_VISIBLE_DEVICES": ",".join(visible_gpus(places, rank)),
            "RAY_ADDRESS": ray.get_runtime_context().gcs_address,
            "DLSYS_RUN_ID": assignment.paths.id,
        }
        if not assignment.store:  # which would not keep what a script saves itself
            told["DLSYS_CHECKPOINTS"] = str(assignment.paths.checkpoints)
        starts.append(actor.start.remote(assignment.to_dict(), rank, told, kept))
    wait_for(starts, wait)
    return [actor.wait.remote() for actor in actors]


class RayRanks:
    """The ranks, as their actors tell of them; arguments are by rank.

    Args:
        calls: come back when a rank has ended.
        presence: of the ranks on their nodes.
        mirror: the driver's.
    """

    def __init__(
        self,
        assignment: Assignment,
        calls: list[Any],
        actors: list[Any],
        places: list[Place],
        presence: Presence,
        mirror: Mirror,
    ) -> None:
        self._waiting = {call: rank for rank, call in enumerate(calls)}
        self._assignment, self._actors, self._places = assignment, actors, places
        self._presence, self._mirror = presence, mirror

    def ended(self, within: float) -> dict[int, End]:
        self._presence.beat()
        calls = list(self._waiting)
        done, _ = ray.wait(calls, num_returns=len(calls), timeout=within)
        return {self._waiting.pop(call): _end(call) for call in done}

    def end(self, grace: float, number: int) -> None:
        for rank in self._waiting.values():
            self._actors[rank].end.remote(grace, number)

    def who(self, rank: int) -> str:
        what = f"rank {rank}" if len(self._places) > 1 else "the command"
        return f"{what} on {self._places[rank].host}"

    def where(self, rank: int) -> str:
        return f"dlsys jobs logs --rank {rank} {self._assignment.paths.id}"

    def gather(self) -> None:
        with suppress(RunError):  # it has ended as it did, also where its last lines cannot be had
            self._mirror.exchange()


def _end(call: Any) -> End:
    try:
        found = ray.get(call)
    except RayError:
        return End(None)
    assert isinstance(found, End)
    return found


class _Rank:
    """An actor with one rank's command."""

    def place(self, beacon: Beacon) -> Place:
        found = here()
        beacon.look(found.host)
        return found

    def sees(self, beacon: Beacon) -> bool:
        try:
            beacon.look("")
        except UsageError:
            return False
        return True

    def reserve(self) -> int:
        self._held = reserved_port("")
        return int(self._held.getsockname()[1])

    def start(self, plain: dict[str, Any], rank: int, told: dict[str, str], kept: dict[str, str]) -> None:
        assignment = Assignment.from_dict(plain).here()
        job, paths = assignment.job, assignment.paths
        assert isinstance(job, ScriptJob), "what is trained has workers of its own"
        self._mirror = Mirror(paths, assignment.store)
        self._mirror.join(paths, rank)
        secrets.enter(paths.secrets)
        own = {key: value for key, value in os.environ.items() if key not in _OF_THE_ACTOR}
        env = {**own, **kept, **job.env, **told}
        command = [program(job.command[0], assignment.folder, env), *job.command[1:]]
        self._rank = Watched(command, paths.log(rank), env, assignment.folder)

    def wait(self) -> End:
        """How the command has ended, once all of it has."""
        end = self._rank.end()
        with suppress(RunError):
            self._mirror.leave()
        return end

    def end(self, grace: float, number: int) -> None:
        self._rank.guarded.end(grace, number)
