"""The kinds of job."""

from __future__ import annotations

from typing import Any

from dlsys.spec.rl.job import Job, RLJob
from dlsys.spec.script.job import ScriptJob
from dlsys.spec.train.job import TrainJob

AnyJob = Job | ScriptJob

_KINDS: dict[str, type[TrainJob] | type[RLJob] | type[ScriptJob]] = {"rl": RLJob, "script": ScriptJob}


def job_of(plain: dict[str, Any]) -> AnyJob:
    """A resolved job from its plain values."""
    return _KINDS.get(plain["kind"], TrainJob).model_validate(plain)
