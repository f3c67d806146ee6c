"""Whether a job's baseline is sound: the same job, with what `baseline.set` changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dlsys.errors import SpecError
from dlsys.spec.metrics import aim, metric_exists
from dlsys.spec.overrides import changed, traced, without_effect
from dlsys.spec.rl.job import Job
from dlsys.spec.rules import Found
from dlsys.spec.train.job import TrainJob
from dlsys.spec.yaml import Document

_SPLITS = ("train", "valid", "test")
_THE_JOBS_OWN = ("kind", "name", "seed", "expect", "baseline", "tracking", "notify")
# A baseline has none of its own, and need not meet what the job expects.
WITHOUT: dict[str, Any] = {"baseline": None, "expect": {}}
_SET, _BY = ("baseline", "set"), ("baseline", "by")


def check(document: Document, job: Job, build: Callable[[Document], Job]) -> Found:
    """What is wrong with the baseline of a job that is sound itself, as (path, sentence).

    Args:
        document: the job's file, with the command line's changes.
        build: the job of a document; raises SpecError.
    """
    if not isinstance(job, TrainJob) or job.baseline is None:
        return
    changes, places = job.baseline.set, {key: (*_SET, key) for key in job.baseline.set}
    for name in job.baseline.by:
        yield from metric_exists(job, (*_BY, name), name, _SPLITS)
    if document.data.get("expect") != {}:  # as `expect={}` says it for a run alone
        yield from aimless(job)
    if misplaced := list(_misplaced(job.baseline.set)):
        yield from misplaced
        return
    try:
        other = build(changed(document, {**changes, **WITHOUT}))
    except SpecError as error:
        yield from traced(error.problems, places, _SET)
        return
    for key, text in without_effect(other, changes):
        yield places[key], text
    for name in job.baseline.by:
        if not list(metric_exists(job, (*_BY, name), name, _SPLITS)):
            yield from metric_exists(other, (*_BY, name), name, _SPLITS)


def aimless(job: TrainJob) -> Found:
    """The metrics of its baseline of which nobody says whether large or small values are good."""
    for name in job.baseline.by if job.baseline else ():
        if name.partition("/")[0] in _SPLITS and aim(job, name) is None and job.modes() is None:
            yield (*_BY, name), f"only you know which value is the best: say expect: {{{name}: '>= …'}}"


def _misplaced(changes: dict[str, Any]) -> Found:
    """Changes that make no baseline, and those that depend on whether a file says its defaults."""
    for key in changes:
        section, *inside = key.split(".")
        if section in _THE_JOBS_OWN:
            yield (*_SET, key), f"stays as it is: a baseline shares {', '.join(_THE_JOBS_OWN)} with its job"
        elif inside and inside[-1] in ("name", "source") and section != "model":
            yield (*_SET, key), f"leaves the other kind's keys there: set all of {key.rpartition('.')[0]}"
    if "workload" in changes and "model" not in changes:
        yield (*_SET, "workload"), "leaves it another one's options: set model too, {} for none"
