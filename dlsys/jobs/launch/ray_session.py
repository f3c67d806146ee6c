"""Ray for as long as a run needs it: a Ray of its own, or a running cluster.

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
import sys
import threading
import time
from contextlib import ExitStack, suppress
from types import ModuleType
from typing import Any

import psutil

from dlsys.errors import DlsysError, RunError
from dlsys.jobs.launch.auth import asks_for_token, ensure_token
from dlsys.jobs.launch.resources import check_fits
from dlsys.jobs.ownership import Ownership
from dlsys.spec.rl.job import RLResources
from dlsys.spec.train.job import Processes

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise a warning about a future default reaches the terminal.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # By default 15: whatever else runs here would go first, and all workers wait for the slowest.
    "RAY_worker_niceness": "0",
}
# Nothing large travels through Ray: batches are made where they are used.
_OBJECT_STORE_BYTES = 100_000_000
# A socket's path has 107 bytes at most, and Ray appends this to its folder's.
_LONGEST_FOLDER = 107 - len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
# A driver that has disconnected takes leave of the cluster within this time.
_GOODBYE = 0.2


class RaySession:
    """One Ray for all attempts of a run, or all trials of a sweep.

    Args:
        owner: gets the processes that must not outlive this driver.
        address: a running cluster; None starts a Ray of our own for this run alone.
        queued: whether the cluster's queue has found room for the run: it is waited for, as long as a
            lost node needs to come back.
    """

    def __init__(self, owner: Ownership, address: str | None, *, queued: bool = False) -> None:
        self._owner = owner
        self.address = address
        self.queued = queued and address is not None
        self._joined: ModuleType | None = None
        self._undo = ExitStack()
        self._before: set[int] = set()
        self._session = ""

    def start(self, need: Processes | RLResources) -> None:
        """Starts or joins Ray.

        Raises:
            ResourceError: the cluster is too small.
            RunError: Ray could not be started or reached, or this process is in one already.
        """
        try:
            _refuse_another()
            if self.address is None:
                self._embed()
            else:
                self._join(self.address, need)
        except DlsysError:
            raise
        except Exception as error:
            place = self.address or "here"
            raise RunError(f"Ray could not be started or reached ({place}): {first_line(error)}") from error

    def _embed(self) -> None:
        _set_environment()
        shorten_tmpdir()
        ensure_token()
        self._joined = ray = _quiet_ray(self._undo)
        _leave_out_what_nobody_asks(self._undo)
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

    def _join(self, address: str, need: Processes | RLResources) -> None:
        self._joined = join(address, self._undo)
        if not self.queued:
            cpus, gpus = self.capacity()
            check_fits(need, cpus=cpus, gpus=gpus, place=f"the cluster at {address}")

    @property
    def _ray(self) -> ModuleType:
        assert self._joined is not None, "start comes first"
        return self._joined

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
        if self._joined is None:
            return
        family = psutil.Process().children(recursive=True) if self.address is None else []
        ended = [process for process in family if process.pid not in self._before]
        killer = threading.Thread(target=self._kill, args=(ended,), daemon=True, name="dlsys-ray-end")
        try:
            killer.start()
            self._ray.shutdown()
        finally:
            killer.join()
            self._joined = None
            self._undo.close()
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


def join(address: str, undo: ExitStack | None = None) -> ModuleType:
    """Joins a running cluster; its Ray.

    Args:
        undo: gets what puts back what is changed in Ray's code here; by default it stays so.
    """
    _set_environment()
    if re.fullmatch(r"[^/]+:\d+", address):
        asked = asks_for_token(address)
        # Left alone, a client sends no token; refused, it retries for 20 s before it fails. And
        # one that sends a token cannot talk to the workers of a cluster that has none.
        os.environ.setdefault("RAY_AUTH_MODE", "token" if asked else "disabled")
    ray = _quiet_ray(ExitStack() if undo is None else undo)
    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    return ray


def shorten_tmpdir() -> None:
    """Leaves a TMPDIR that is too long for the sockets of Ray, and of whatever Ray starts, for /tmp.

    Raises:
        RunError: RAY_TMPDIR, which is for nothing else, is too long.
    """
    longest = _LONGEST_FOLDER - len("/ray")
    if told := os.environ.get("RAY_TMPDIR"):
        if len(os.fsencode(told)) > longest:
            raise RunError(
                f"RAY_TMPDIR is {told}, and Ray's sockets need a folder of at most {longest} bytes",
                hint="Set it to a shorter one.",
            )
    elif len(os.fsencode(os.environ.get("TMPDIR", ""))) > longest:
        os.environ["TMPDIR"] = "/tmp"


def _set_environment() -> None:
    os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})


def _refuse_another() -> None:
    """A process is in one Ray at a time, and that of the program which called us is not ours to leave."""
    # Ray reads how it is to authenticate when it is imported: not before that is known.
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        raise RunError(
            "this process has called ray.init already, and a run starts or joins a Ray of its own",
            hint="Call ray.shutdown() before, or train with resources.workers=1.",
        )


def _set(undo: ExitStack, owner: Any, name: str, value: Any) -> None:
    undo.callback(setattr, owner, name, getattr(owner, name))
    setattr(owner, name, value)


def _quiet_ray(undo: ExitStack) -> ModuleType:
    """Ray, that leaves the terminal and the signals to dlsys, until `undo` is closed.

    `log_to_driver=False` still prints what Ray thinks of dead workers, on stdout; dlsys says it.
    """
    import ray
    from ray._private import utils, worker

    _set(undo, worker, "print_to_stdstream", lambda *args, **kwargs: None)
    # Ray's handler ends the process where it is: a run that is asked to end saves and sums up first.
    _set(undo, utils, "set_sigterm_handler", lambda handler: None)
    return ray


def _leave_out_what_nobody_asks(undo: ExitStack) -> None:
    """Sets what `ray start` has options for, and `ray.init` has none.

    The node's agent wants port 52365; where another Ray has it, it tries again for 3 s, and the
    whole node waits: it may choose another. The log monitor sends workers' lines to a driver that
    wants none, the autoscaler has nothing to scale, and what `include_dashboard=False` leaves of the
    dashboard reports usage to nobody, and the whole node waits for it; each is an interpreter, which
    starts slowly and wakes up many times a second on the cores that train. Whether the dashboard could
    run is asked by importing what it needs.
    """
    from ray._private import utils
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    init: Any = functools.partialmethod(
        RayParams.__init__, dashboard_agent_listen_port=0, include_log_monitor=False, no_monitor=True
    )
    _set(undo, RayParams, "__init__", init)
    _set(undo, Node, "start_api_server", lambda node, **options: None)
    _set(undo, utils, "get_dashboard_dependency_error", lambda: ImportError("left out"))


def first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
