"""Resolved jobs of earlier versions of dlsys."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.kinds import job_of
from dlsys.spec.train import rules
from dlsys.spec.train.job import TrainJob


def as_now(plain: dict[str, Any]) -> dict[str, Any]:
    """A resolved job of an earlier version as this one would write it.

    Options that are new are at their defaults, which is what the earlier version did; options of the
    model that are gone, because the data tells them now, are left out. What no longer is a job at all
    stays as it was.
    """
    told, name = dict(plain), plain.get("workload")
    if name in WORKLOADS:
        options = WORKLOADS.load(str(name)).options.model_fields
        told["model"] = {key: value for key, value in told.get("model", {}).items() if key in options}
    try:
        job = job_of(told)
    except (ValidationError, KeyError):
        return plain
    return (rules.resolve(job) if isinstance(job, TrainJob) else job).model_dump(mode="json")
