"""Which launcher starts a job's workers."""

from __future__ import annotations

from dlsys.jobs.launch.launcher import Launcher
from dlsys.jobs.launch.resources import check_machine
from dlsys.jobs.mirror.node import Mirror
from dlsys.jobs.ownership import Ownership
from dlsys.spec.kinds import AnyJob
from dlsys.spec.script.job import ScriptJob


def launcher_of(
    job: AnyJob, owner: Ownership, mirror: Mirror, *, address: str | None, queued: bool
) -> Launcher:
    """The one that suits a job.

    Args:
        owner: gets the processes that must not outlive the driver.
        mirror: the driver's own.
        address: a running Ray cluster; None is this machine.
        queued: whether the cluster's queue has found room for the run.

    Raises:
        ResourceError: this machine is too small.
    """
    if address is None:
        check_machine(job.resources)
    # Each is imported where it is used: Ray, and what trains, take their time.
    if isinstance(job, ScriptJob):
        if address is None:
            from dlsys.jobs.launch.local_script import LocalScript

            return LocalScript()
        from dlsys.jobs.launch.ray_launcher import RayScript
        from dlsys.jobs.launch.ray_session import RaySession

        return RayScript(RaySession(owner, address, queued=queued), mirror)
    resources = job.resources
    if resources.workers == 1 and address is None and not job.needs_ray:
        from dlsys.jobs.launch.inprocess import InProcess

        return InProcess(mirror)
    from dlsys.jobs.launch import ray_launcher
    from dlsys.jobs.launch.ray_session import RaySession

    session = RaySession(owner, address, queued=queued)
    if resources.launcher == "train":
        return ray_launcher.RayTrain(session)
    return ray_launcher.RayActors(session)
