"""Several workers as Ray Train's own: `TorchTrainer` (`resources.launcher: train`).

It brings Ray Train's dashboard, metrics and resource requests; it costs its controller's and its
workers' fresh interpreters at every start (`benchmarks/launch.py` has both side by side).
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from dlsys.errors import RunError, WorkerDiedError
from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.launch.presence import Presence, tell, told

# Ray 2.60 reads these when it is imported. The controller looks at its workers every 2 s by
# default; the watcher of preemptions is one more actor to wait for.
ENVIRONMENT = {
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
}


def fit(assignment: Assignment, watch: Callable[[], None]) -> None:
    """Runs one attempt's workers to their end.

    Args:
        watch: called several times a second; raises to end the attempt.

    Raises:
        WorkerDiedError: a worker failed or died.
        RunError: Ray Train failed.
    """
    found: list[BaseException] = []

    def run() -> None:
        try:
            _fit(assignment)
        except BaseException as error:
            found.append(error)

    # Away from the main thread, where Train would take SIGINT for itself.
    thread = threading.Thread(target=run, daemon=True, name="dlsys-ray-train")
    thread.start()
    with ExitStack() as stack:
        present = False
        while thread.is_alive():
            watch()
            if not present and (places := told(assignment)):
                presence = stack.enter_context(Presence(assignment, places))
                present, watch = True, presence.during(watch)
            thread.join(timeout=0.05)
    if found:
        raise _translated(found[0]) from found[0]


def _fit(assignment: Assignment) -> None:
    os.environ.update({name: os.environ.get(name, value) for name, value in ENVIRONMENT.items()})
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    from dlsys.train.world import backends

    resources = assignment.trained.resources
    per_worker = {"CPU": float(resources.cpus)}
    if resources.gpus:
        per_worker["GPU"] = float(resources.gpus)
    storage = assignment.paths.root / "ray"
    try:
        TorchTrainer(
            _train,
            train_loop_config=assignment.to_dict(),
            scaling_config=ScalingConfig(
                num_workers=resources.workers,
                use_gpu=resources.gpus > 0,
                resources_per_worker=per_worker,
            ),
            run_config=RunConfig(
                name=f"attempt-{assignment.attempt}",
                storage_path=str(storage),
                # Train retries whatever a worker raises; a NaN or a typo would be run again and
                # again. Attempts are counted by our caller, where causes are told apart.
                failure_config=FailureConfig(max_failures=0),
                # Train's record of checkpoints can be torn, and then it never falls back; ours
                # are found on disk, by checksum, and Train is told of none.
                checkpoint_config=CheckpointConfig(num_to_keep=1),
            ),
            torch_config=TorchConfig(backend=backends("cuda" if resources.gpus > 0 else "cpu")),
        ).fit()
    finally:
        shutil.rmtree(storage, ignore_errors=True)


def _train(config: dict[str, Any]) -> None:
    """Runs in each of Ray Train's workers, in the process group that Train has set up."""
    import ray.train
    from ray.train.torch import get_device

    from dlsys.jobs.launch.ray_worker import serve
    from dlsys.train.world import World, backends

    context = ray.train.get_context()
    device, size = get_device(), context.get_world_size()
    assignment = Assignment.from_dict(config)
    tell(assignment.here(), context.get_world_rank())
    serve(
        assignment,
        World(
            rank=context.get_world_rank(),
            local_rank=context.get_local_rank(),
            size=size,
            device=device,
            backend=backends(device.type) if size > 1 else "",
        ),
    )


def _translated(error: BaseException) -> RunError:
    from ray.train import TrainingFailedError, WorkerGroupError

    if isinstance(error, WorkerGroupError):
        ranks = ", ".join(str(rank) for rank in sorted(error.worker_failures))
        return WorkerDiedError(f"worker {ranks} died without a word: killed, or out of memory")
    lines = [line for line in str(error).strip().splitlines() if line.strip()] or [type(error).__name__]
    kind = "Ray Train failed" if isinstance(error, TrainingFailedError) else type(error).__name__
    return RunError(f"{kind}: {lines[0][:300]}")
