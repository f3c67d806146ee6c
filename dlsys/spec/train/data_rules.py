"""Rules about `data:` alone: shares and parts of rows, processes, and functions of one's own."""

from __future__ import annotations

from dlsys.spec.data import OwnSource
from dlsys.spec.data.section import SplitBy
from dlsys.spec.own_code import misnamed_options, own_code
from dlsys.spec.rules import Found
from dlsys.spec.train.job import TrainJob


def sound(job: TrainJob) -> Found:
    """All of them."""
    for rule in (_ahead_for_all, _splits_leave_rows, _split_by_one, _own_source_exists):
        yield from rule(job)


def _ahead_for_all(job: TrainJob) -> Found:
    if 0 < job.data.prefetch < job.data.workers:
        yield (
            ("data", "prefetch"),
            f"{job.data.prefetch} ahead would leave some of {job.data.workers} data.workers idle: make it "
            f"{job.data.workers} or more, or leave it out",
        )


def _splits_leave_rows(job: TrainJob) -> Found:
    valid, test = getattr(job.data, "valid", 0.0), getattr(job.data, "test", 0.0)
    if valid + test >= 1:
        yield (
            ("data", "valid"),
            f"valid + test must leave rows to train on, but got {valid:g} + {test:g}",
        )
    path = getattr(job.data, "path", None)
    if path is not None and (not path or "\0" in path):
        yield ("data", "path"), "must be a path"


def _split_by_one(job: TrainJob) -> Found:
    by: SplitBy | None = getattr(job.data, "split_by", None)
    if by is None:
        return
    if len(by.ways) != 1:
        got = ", ".join(by.ways) or "none"
        yield ("data", "split_by"), f"say one of group, time, strata and part, or valid and test: got {got}"
    elif by.files and isinstance(job.data, OwnSource):
        yield (
            ("data", "split_by"),
            "an own function has no other files: return a mapping with train, valid and test from it",
        )
    for part, path in by.files.items():
        if "\0" in path:
            yield ("data", "split_by", part), "must be a path"


def _own_source_exists(job: TrainJob) -> Found:
    if isinstance(job.data, OwnSource):
        wrong = list(own_code(job.data.place, ("data", "source")))
        yield from wrong or misnamed_options(job.data.place, job.data.options, job.data.given, ("data",))
