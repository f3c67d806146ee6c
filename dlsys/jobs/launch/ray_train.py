"""Several workers: Ray Train's `TorchTrainer`, on an embedded Ray or on a running cluster.

Facts behind the settings (Ray 2.60): the controller looks at its workers every 2 s by default, and
a report waits for that look; a Ray on the machine is attached to silently unless an address is
given; the preemption watcher and the dashboard cost seconds of start-up and serve nobody here.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

from dlsys.errors import DlsysError, ResourceError, RunError, WorkerDiedError
from dlsys.jobs.launch.auth import ensure_token
from dlsys.jobs.launch.worker import Assignment, reported
from dlsys.jobs.ownership import Ownership
from dlsys.paths import read_json
from dlsys.train.loop import Result
from dlsys.train.checkpoint import Position

_ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_ENABLE_STATE_ACTOR_RECONCILIATION": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "0",
}


class RayLauncher:
    """Keeps one Ray for all attempts of a run.

    Args:
        owner: gets the processes that must not outlive this driver.
        address: a running cluster; None starts a Ray of our own for this run alone.
    """

    def __init__(self, owner: Ownership, address: str | None) -> None:
        self._owner = owner
        self._address = address
        self._ray: Any = None

    def start(self, workers: int, cpus: float, gpus: float) -> None:
        """Starts or joins Ray.

        Raises:
            ResourceError: the machine or the cluster is too small.
            RunError: Ray could not be started or reached.
        """
        os.environ.update({name: os.environ.get(name, value) for name, value in _ENVIRONMENT.items()})
        if self._address is None:
            have = len(os.sched_getaffinity(0))
            _check_fits(workers, cpus, gpus, float(have), _local_gpus(), "this machine")
            ensure_token()
        # The driver's own imports take as long as Ray's start: side by side.
        importing = threading.Thread(target=_import_train, daemon=True)
        importing.start()
        try:
            import ray

            self._ray = ray
            logging.getLogger("ray").setLevel(logging.ERROR)
            before = {child.pid for child in psutil.Process().children(recursive=True)}
            if self._address is None:
                ray.init(
                    address="local",
                    num_cpus=have,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
                children = psutil.Process().children(recursive=True)
                self._owner.record([child for child in children if child.pid not in before])
            else:
                ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
                total = ray.cluster_resources()
                _check_fits(
                    workers,
                    cpus,
                    gpus,
                    total.get("CPU", 0.0),
                    total.get("GPU", 0.0),
                    f"the cluster at {self._address}",
                )
        except DlsysError:
            raise
        except Exception as error:
            place = self._address or "here"
            raise RunError(f"Ray could not be started or reached ({place}): {_first_line(error)}") from error
        finally:
            importing.join()

    def run(self, assignment: Assignment, *, watch: Callable[[], None]) -> Result:
        """One attempt: a group of workers, from the newest checkpoint to the end.

        Args:
            watch: called several times a second; raises to end the attempt.

        Raises:
            DlsysError: the attempt failed; WorkerDiedError and HangError may go better again.
        """
        outcome = _Fit()
        thread = threading.Thread(target=outcome.run, args=(assignment,), daemon=True, name="dlsys-fit")
        thread.start()
        while thread.is_alive():
            watch()
            thread.join(timeout=0.05)
        if outcome.error is not None:
            raise reported(assignment) or _translate(outcome.error)
        result = read_json(assignment.attempt_folder(assignment.paths.failures) / "result.json")
        if result is None:
            raise WorkerDiedError("the workers ended without a result")
        return Result(result["reason"], Position(**result["position"]), result["metrics"])

    def stop(self) -> None:
        """Ends Ray, or leaves the cluster; nothing of ours stays behind."""
        if self._ray is None:
            return
        try:
            self._ray.shutdown()
        finally:
            self._ray = None


@dataclass
class _Fit:
    error: BaseException | None = None

    def run(self, assignment: Assignment) -> None:
        from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
        from ray.train.torch import TorchConfig, TorchTrainer

        resources = assignment.job["resources"]
        storage = assignment.paths.root / "ray"
        try:
            TorchTrainer(
                ray_worker,
                train_loop_config=assignment.to_dict(),
                scaling_config=ScalingConfig(
                    num_workers=resources["workers"],
                    use_gpu=resources["gpus"] > 0,
                    resources_per_worker=_per_worker(resources),
                ),
                run_config=RunConfig(
                    name=f"attempt-{assignment.attempt}",
                    storage_path=str(storage),
                    # Train retries whatever a worker raises; a NaN or a typo would be run again
                    # and again. Attempts are counted above, where causes are told apart.
                    failure_config=FailureConfig(max_failures=0),
                    # Train's records of checkpoints can be torn and then never fall back; ours
                    # are found on disk, by checksum, whatever Train remembers.
                    checkpoint_config=CheckpointConfig(num_to_keep=1),
                ),
                torch_config=TorchConfig(backend="nccl" if resources["gpus"] > 0 else "gloo"),
            ).fit()
        except BaseException as error:
            self.error = error
        finally:
            shutil.rmtree(storage, ignore_errors=True)


def ray_worker(config: dict[str, Any]) -> None:
    """Runs in each Ray Train worker."""
    import ray.train
    from ray.train.torch import get_device

    from dlsys.jobs.launch.worker import log_to_file, report_error, watch_driver, work
    from dlsys.paths import write_json
    from dlsys.train.world import World

    assignment = Assignment(**config)
    context = ray.train.get_context()
    rank = context.get_world_rank()
    paths = assignment.paths
    log_to_file(paths.log(rank))
    watch_driver(assignment)
    if os.path.isdir(assignment.directory):
        os.chdir(assignment.directory)
    device = get_device()
    size = context.get_world_size()
    world = World(
        rank=rank,
        local_rank=context.get_local_rank(),
        size=size,
        device=device,
        backend="" if size == 1 else ("nccl" if device.type == "cuda" else "gloo"),
    )
    try:
        result = work(assignment, world, stop_requested=(paths.root / "stop").exists)
    except Exception as error:
        if size == 1:
            report_error(assignment, rank, error)
        raise
    if world.is_main:
        folder = assignment.attempt_folder(paths.failures)
        folder.mkdir(parents=True, exist_ok=True)
        position = vars(result.position)
        write_json(
            folder / "result.json", {"reason": result.reason, "position": position, "metrics": result.metrics}
        )


def _import_train() -> None:
    import ray.train.torch  # noqa: F401


def _per_worker(resources: dict[str, Any]) -> dict[str, float]:
    wanted = {"CPU": float(resources["cpus"])}
    if resources["gpus"]:
        wanted["GPU"] = float(resources["gpus"])
    return wanted


def _local_gpus() -> float:
    import torch

    return float(torch.cuda.device_count())


def _check_fits(
    workers: int, cpus: float, gpus: float, have_cpus: float, have_gpus: float, place: str
) -> None:
    for what, each, have in (("CPUs", cpus, have_cpus), ("GPUs", gpus, have_gpus)):
        if workers * each > have:
            raise ResourceError(
                f"resources: {workers} workers × {each:g} {what} = {workers * each:g}, but {place} has {have:g}",
                hint=f"Use fewer workers, or a cluster of {workers * each:g} {what} (--address).",
            )


def _translate(error: BaseException) -> DlsysError:
    from ray.exceptions import RayError
    from ray.train import TrainingFailedError, WorkerGroupError

    if isinstance(error, WorkerGroupError):
        ranks = ", ".join(str(rank) for rank in sorted(error.worker_failures))
        return WorkerDiedError(f"worker {ranks} died without a word: killed, or out of memory")
    if isinstance(error, TrainingFailedError | RayError):
        return RunError(f"Ray Train failed: {_first_line(error)}")
    failed = RunError(f"{type(error).__name__}: {_first_line(error)}")
    failed.__cause__ = error
    return failed


def _first_line(error: BaseException) -> str:
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[0][:300] if lines else type(error).__name__
