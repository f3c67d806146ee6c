"""Several workers on Ray: on an embedded one, or on a running cluster.

Facts behind the settings (Ray 2.60): a Ray on the machine is attached to silently unless an address
is given; the object store's memory is mapped at the start, which takes a second for the default
share of the machine; `ray.shutdown` waits a second for a raylet that has nothing to save.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace
from typing import Any

import psutil

from dlsys.errors import DlsysError, RunError, UsageError, WorkerDiedError
from dlsys.jobs.launch.assignment import Assignment, Outcome, reported
from dlsys.jobs.launch.auth import asks_for_token, ensure_token
from dlsys.jobs.launch.resources import check_fits
from dlsys.jobs.mirror.node import Mirror
from dlsys.jobs.ownership import Ownership
from dlsys.paths import read_json
from dlsys.spec.rl.job import RLResources
from dlsys.spec.train.job import Resources

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise a warning about a future default reaches the terminal.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default 15: whatever else runs here would go first, and all workers wait for the slowest.
    "RAY_worker_niceness": "0",
}
# Nothing large travels through Ray: batches are made where they are used.
_OBJECT_STORE_BYTES = 100_000_000
# A driver that has disconnected takes leave of the cluster within this time.
_GOODBYE = 0.2


class RayLauncher:
    """Keeps one Ray for all attempts of a run.

    Args:
        owner: gets the processes that must not outlive this driver.
        address: a running cluster; None starts a Ray of our own for this run alone.
        queued: whether the cluster's queue has found room for the run: it is waited for, as long as a
            lost node needs to come back.
    """

    def __init__(self, owner: Ownership, address: str | None, *, queued: bool = False) -> None:
        self._owner = owner
        self._address = address
        self._queued = queued and address is not None
        self._ray: Any = None
        self._before: set[int] = set()
        self._session = ""

    def start(self, need: Resources | RLResources) -> None:
        """Starts or joins Ray.

        Raises:
            ResourceError: the cluster is too small.
            RunError: Ray could not be started or reached.
        """
        try:
            if self._address is None:
                self._embed()
            else:
                self._join(self._address, need)
        except DlsysError:
            raise
        except Exception as error:
            place = self._address or "here"
            raise RunError(f"Ray could not be started or reached ({place}): {_first_line(error)}") from error

    def _embed(self) -> None:
        _set_environment()
        ensure_token()
        self._ray = ray = _quiet_ray()
        _leave_out_what_nobody_asks()
        self._before = {child.pid for child in psutil.Process().children(recursive=True)}
        try:
            context = ray.init(
                address="local",
                num_cpus=len(os.sched_getaffinity(0)),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
            self._session = context.address_info["session_dir"]
        finally:
            children = psutil.Process().children(recursive=True)
            self._owner.record([child for child in children if child.pid not in self._before])

    def _join(self, address: str, need: Resources | RLResources) -> None:
        self._ray = ray = join(address)
        if self._queued:
            return
        total = ray.cluster_resources()
        check_fits(
            need, cpus=total.get("CPU", 0.0), gpus=total.get("GPU", 0.0), place=f"the cluster at {address}"
        )

    def run(self, assignment: Assignment, *, watch: Callable[[], None]) -> Outcome:
        """One attempt: a group of workers, from the newest checkpoint to the end.

        Args:
            watch: called several times a second; raises to end the attempt.

        Raises:
            DlsysError: the attempt failed; WorkerDiedError and HangError may go better again.
        """
        from ray.exceptions import RayError

        mirror = Mirror(assignment.owner_paths, assignment.store)
        if self._queued:  # Ray has unpacked the working folder on each node
            assignment = replace(assignment, directory="")
        if assignment.job["resources"].get("launcher") == "train":
            if assignment.store and assignment.owner_paths.secrets.exists():
                raise UsageError(
                    "resources.launcher: train hands no secrets to nodes that share no folder",
                    hint="Leave it out.",
                )
            from dlsys.jobs.launch.ray_trainer import fit
        else:
            from dlsys.jobs.launch.ray_actors import fit
        try:
            with equipped(assignment, watch) as ready:
                fit(ready, watch)
        except RayError as error:
            with suppress(RunError):
                mirror.exchange()
            raise reported(assignment) or _translate(error) from error
        except WorkerDiedError as error:
            with suppress(RunError):
                mirror.exchange()
            raise reported(assignment) or error from error
        away: RunError | None = None
        try:
            mirror.exchange()
        except RunError as error:  # what rank 0 left may be here all the same
            away = error
        found = read_json(assignment.attempt_folder(assignment.paths.failures) / "result.json")
        if found is None:
            raise away or WorkerDiedError("the workers ended without a result")
        return Outcome(**found)

    def capacity(self) -> tuple[float, float]:
        """The CPUs and GPUs of the whole cluster."""
        total = self._ray.cluster_resources()
        return total.get("CPU", 0.0), total.get("GPU", 0.0)

    def free(self) -> list[dict[str, float]]:
        """What is free on each node that is alive."""
        from ray._private.state import available_resources_per_node

        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        return [
            {key: float(amounts.get(key, 0.0)) for key in ("CPU", "GPU")}
            for node, amounts in available_resources_per_node().items()  # type: ignore[no-untyped-call]
            if node in alive
        ]

    def stop(self) -> None:
        """Ends Ray, or leaves the cluster; nothing of ours stays behind."""
        if self._ray is None:
            return
        family = psutil.Process().children(recursive=True) if self._address is None else []
        ended = [process for process in family if process.pid not in self._before]
        killer = threading.Thread(target=self._kill, args=(ended,), daemon=True, name="dlsys-ray-end")
        try:
            killer.start()
            self._ray.shutdown()
        finally:
            killer.join()
            self._ray = None
            if self._session:
                shutil.rmtree(self._session, ignore_errors=True)

    def _kill(self, processes: list[psutil.Process]) -> None:
        """Spares `ray.shutdown` its second of waiting for each process to save what it has not."""
        while self._ray.is_initialized():
            time.sleep(0.01)
        time.sleep(_GOODBYE)
        for process in processes:
            with suppress(psutil.Error):
                process.kill()


def join(address: str) -> Any:
    """Joins a running cluster; its Ray."""
    _set_environment()
    if re.fullmatch(r"[^/]+:\d+", address):
        asked = asks_for_token(address)
        # Left alone, a client sends no token; refused, it retries for 20 s before it fails. And
        # one that sends a token cannot talk to the workers of a cluster that has none.
        os.environ.setdefault("RAY_AUTH_MODE", "token" if asked else "disabled")
    ray = _quiet_ray()
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    return ray


def equipped(assignment: Assignment, watch: Callable[[], None]) -> AbstractContextManager[Assignment]:
    """The assignment with the parameter servers that it needs, for as long as the context lasts."""
    if (assignment.job.get("strategy") or {}).get("name") != "ps":
        return nullcontext(assignment)  # and the driver need not import what servers need
    from dlsys.jobs.launch.ray_servers import parameter_servers

    return parameter_servers(assignment, watch)


def _set_environment() -> None:
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})


def _quiet_ray() -> Any:
    """Ray, that leaves the terminal to dlsys.

    `log_to_driver=False` still prints what Ray thinks of dead workers, on stdout; dlsys says it.
    """
    import ray
    from ray._private import worker

    worker.print_to_stdstream = lambda *args, **kwargs: None
    return ray


def _leave_out_what_nobody_asks() -> None:
    """Sets what `ray start` has options for, and `ray.init` has none.

    The node's agent wants port 52365; where another Ray has it, it tries again for 3 s, and the
    whole node waits: it may choose another. The log monitor sends workers' lines to a driver that
    wants none, and the autoscaler has nothing to scale; each is an interpreter, which starts slowly
    and wakes up many times a second on the cores that train.
    """
    from ray._private.parameter import RayParams

    RayParams.__init__ = functools.partialmethod(  # type: ignore[assignment, method-assign]
        RayParams.__init__, dashboard_agent_listen_port=0, include_log_monitor=False, no_monitor=True
    )


def _translate(error: BaseException) -> DlsysError:
    from ray.exceptions import RayActorError

    if isinstance(error, RayActorError):
        return WorkerDiedError("a worker died without a word: killed, or out of memory")
    cause = getattr(error, "cause", None) or error
    if isinstance(cause, DlsysError):
        return cause
    return RunError(f"a worker failed: {type(cause).__name__}: {_first_line(cause)}")


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
