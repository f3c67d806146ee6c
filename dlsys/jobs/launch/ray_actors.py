"""Several workers as plain Ray actors in one placement group.

Ray Train's controller, its two helpers and its workers are fresh interpreters, started one stage
after the other, and each imports Ray Data, pandas and pyarrow. An actor with no runtime environment
of its own takes an interpreter that Ray has already started, and imports what it trains with.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

import psutil
import ray
from ray.exceptions import OutOfMemoryError, RayActorError, RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy, PlacementGroupSchedulingStrategy

from dlsys.errors import RunError
from dlsys.jobs import secrets
from dlsys.jobs.launch import memory
from dlsys.jobs.launch.assignment import Assignment, report
from dlsys.jobs.launch.beacon import Beacon, beacon_of
from dlsys.jobs.launch.presence import Place, Presence, here

# Workers that lost a dead one tell so within this time; then they are ended.
_LAST_WORDS = 1.0
_LOOK = 0.1
# Whoever waits longer for room is told why.
_TELL = 60.0
# A node that is short of memory may be slow to start a process.
_ANSWER = 10.0


def fit(assignment: Assignment, watch: Callable[[], None], group: PlacementGroup | None = None) -> None:
    """Runs one attempt's workers to their end, and leaves none behind.

    Args:
        watch: called several times a second; raises to end the attempt.
        group: room that the caller has for them, and keeps; without, they find their own.

    Raises:
        RunError: the workers found no room.
        ray.exceptions.RayError: a worker failed or died.
    """
    need = assignment.trained.resources
    own = None if group else placement_group(need.bundles)
    room = group or own
    assert room is not None
    actors: list[Any] = []
    try:
        await_room(room, watch, assignment.trained.failure.replacement)
        began = time.time()
        actors = [
            ray.remote(_Worker)
            .options(
                num_cpus=one.get("CPU", 0.0),
                num_gpus=one.get("GPU", 0.0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(
                    room, index, placement_group_capture_child_tasks=True
                ),
            )
            .remote()
            for index, one in enumerate(need.bundles[: need.workers])
        ]
        _work(actors, assignment, watch, began)
    finally:
        for actor in actors:
            ray.kill(actor)
        if own is not None:
            with suppress(Exception):  # a cluster that is gone has no group either
                remove_placement_group(own)


def await_room(group: PlacementGroup, watch: Callable[[], None], patience: float) -> None:
    """Waits until a group has its room.

    Args:
        group: the room.
        watch: called several times a second; raises to end the waiting.
        patience: in seconds.

    Raises:
        RunError: there is none in time.
    """
    began, told = time.monotonic(), False
    while not group.wait(_LOOK):
        watch()
        waited = time.monotonic() - began
        if waited > patience:
            raise RunError(
                f"Ray found no room for the workers in {patience:g} s: nodes are lost, or others use them",
                hint="Wait, use fewer workers, or raise failure.replacement.",
            )
        if waited > _TELL and not told:
            told = True
            sys.stderr.write(f"waits for room since {_TELL:g} s: a node is away, or others use it\n")
            sys.stderr.flush()


def _work(actors: list[Any], assignment: Assignment, watch: Callable[[], None], began: float) -> None:
    # Elsewhere there is no file to read them from; a call's arguments are written down nowhere.
    kept = secrets.read(assignment.owner_paths.secrets) if assignment.store else {}
    with beacon_of(assignment.owner_paths.root, assignment.store) as beacon:
        found = wait_for([actor.place.remote(beacon, kept) for actor in actors], watch)
    places, workers = in_ranks(found, actors)
    with Presence(assignment, places, began) as presence:
        watch = presence.during(watch)
        port = wait_for([workers[0].listen.remote(places[0].host, len(actors))], watch)[0]
        cpus = assignment.trained.resources.cpus
        kills = wait_for(
            [actor.join.remote(cpus, rank, places, port) for rank, actor in enumerate(workers)], watch
        )
        calls = [actor.work.remote(assignment.to_dict()) for actor in workers]
        # Workers that cannot go on without a dead one say so; these take its share of the work, but not
        # rank 0's.
        servers = assignment.trained.servers
        go_on = servers is not None and servers.mode == "async"
        try:
            wait_for(calls, watch, may_die=calls[1:] if go_on else [])
        except RayError:
            _find_shortage(calls, assignment, places, kills)
            raise


def _find_shortage(calls: list[Any], assignment: Assignment, places: list[Place], kills: list[int]) -> None:
    """Reports, in the place of workers that were killed for memory, what they can no longer tell.

    Args:
        kills: `memory.kernel_kills` of each rank's machine before the attempt.
    """
    ended, _ = ray.wait(calls, num_returns=len(calls), timeout=_LAST_WORDS)
    for rank, (call, place) in enumerate(zip(calls, places, strict=True)):
        killer = _killer(call, place, kills[rank]) if call in ended else ""
        if killer:
            text = memory.of_a_dead_one(assignment.paths, rank, assignment.trained, killer)
            report(assignment, rank, "memory", text, hint=memory.HINT)


def _killer(call: Any, place: Place, kills: int) -> str:
    """Who killed an actor for memory; empty for one that lives, or died of something else."""
    try:
        ray.get(call, timeout=0)
    except OutOfMemoryError:
        return "Ray's memory monitor"
    except RayActorError as error:
        if "OOM" in str(error) and "memory monitor" in str(error):
            return "Ray's memory monitor"
        on = NodeAffinitySchedulingStrategy(place.node, soft=False)
        count = ray.remote(memory.kernel_kills).options(num_cpus=0, scheduling_strategy=on).remote()
        with suppress(Exception):  # the node may be gone too
            return "the kernel" if ray.get(count, timeout=_ANSWER) > kills else ""
    except Exception:
        return ""
    return ""


def in_ranks(
    places: list[Place], actors: list[Any], first: Collection[str] = ()
) -> tuple[list[Place], list[Any]]:
    """Actors in the order of their ranks: those of one machine are neighbours.

    What a ring or a shard group sends stays on it.

    Args:
        first: the nodes whose ranks come before all others.
    """

    def turn(pair: tuple[Place, Any]) -> tuple[bool, str, tuple[str, ...]]:
        return pair[0].node not in first, pair[0].node, pair[0].gpus

    ranked = sorted(zip(places, actors, strict=True), key=turn)
    return [place for place, _ in ranked], [actor for _, actor in ranked]


def variables(places: list[Place], rank: int, port: int) -> dict[str, str]:
    """A rank's place among all as torchrun tells it: libraries ask the environment."""
    nodes = list(dict.fromkeys(place.node for place in places))
    here = _here(places, rank)
    return {
        "MASTER_ADDR": places[0].host,
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(len(places)),
        "LOCAL_RANK": str(here.index(rank)),
        "LOCAL_WORLD_SIZE": str(len(here)),
        "NODE_RANK": str(nodes.index(places[rank].node)),
    }


def visible_gpus(places: list[Place], rank: int) -> list[str]:
    """The GPUs of all ranks of its machine, in their order: NCCL's direct copies need the neighbours'."""
    return list(dict.fromkeys(gpu for index in _here(places, rank) for gpu in places[index].gpus))


def _here(places: list[Place], rank: int) -> list[int]:
    """The ranks of a rank's machine."""
    return [index for index, place in enumerate(places) if place.node == places[rank].node]


def wait_for(calls: list[Any], watch: Callable[[], None], *, may_die: Collection[Any] = ()) -> list[Any]:
    """The calls' results; the first error of one of them.

    Args:
        may_die: the calls of actors that may die without a word; such a one has no result.
    """
    waiting, results = list(calls), dict.fromkeys(calls)
    while waiting:
        watch()
        done, waiting = ray.wait(waiting, timeout=_LOOK)
        for call in done:
            try:
                results[call] = ray.get(call)
            except Exception as error:
                if call in may_die and isinstance(error, RayActorError):
                    continue
                if waiting:
                    ray.wait(waiting, num_returns=len(waiting), timeout=_LAST_WORDS)
                raise
    return list(results.values())


def interface(host: str) -> str:
    """The network interface of this machine that has an address."""
    every = psutil.net_if_addrs().items()
    return next(name for name, addresses in every if host in (each.address for each in addresses))


class _Worker:
    """One worker's process."""

    def place(self, beacon: Beacon, kept: dict[str, str]) -> Place:
        import dlsys.jobs.launch.ray_worker  # noqa: F401 - all workers import at the same time

        os.environ.update(kept)
        found = here()
        beacon.look(found.host)
        return found

    def listen(self, host: str, size: int) -> int:
        """Opens, on rank 0, the store through which the workers find each other; its port."""
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        self._store = TCPStore(host, 0, size, is_master=True, wait_for_workers=False)
        return int(self._store.port)

    def join(self, cpus: float, rank: int, places: list[Place], port: int) -> int:
        """Enters the process group; returns when all have. Until then, nobody can go on without another.

        Returns:
            how many processes this machine's kernel has killed for memory.
        """
        import torch
        from torch import distributed
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        from dlsys.jobs.launch.resources import bind_cores
        from dlsys.train.world import World, backends

        told = variables(places, rank, port)
        os.environ.update(told)
        local_rank = int(told["LOCAL_RANK"])
        bind_cores(cpus, local_rank, int(told["LOCAL_WORLD_SIZE"]))
        if len({place.node for place in places}) > 1:
            # Left alone, gloo takes the address of the host's name, which on Debian is a loopback's.
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface(places[rank].host))
        device = torch.device("cpu")
        if places[rank].gpus:
            visible = visible_gpus(places, rank)
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(visible)
            device = torch.device("cuda", visible.index(places[rank].gpus[0]))
            torch.cuda.set_device(device)
        if rank:
            self._store = TCPStore(places[0].host, port, len(places), is_master=False)
        backend = backends(device.type) if len(places) > 1 else ""
        if backend:
            distributed.init_process_group(backend, store=self._store, rank=rank, world_size=len(places))
        self._world = World(
            rank=rank, local_rank=local_rank, size=len(places), device=device, backend=backend
        )
        return memory.kernel_kills()

    def work(self, config: dict[str, Any]) -> None:
        from torch import distributed

        from dlsys.jobs.launch.ray_worker import serve

        serve(Assignment.from_dict(config), self._world)
        if self._world.backend:
            distributed.destroy_process_group()
