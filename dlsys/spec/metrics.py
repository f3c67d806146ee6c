"""What a job measures, and which value of it is the best."""

from __future__ import annotations

from collections.abc import Iterator

from dlsys.registry import did_you_mean
from dlsys.spec.names import wrong_name
from dlsys.spec.rl.job import Job
from dlsys.spec.section import show
from dlsys.spec.yaml import Path


def best(job: Job, metric: str) -> str | None:
    """Whether the largest (`max`) or the smallest (`min`) value of `split/metric` is the best."""
    known = job.modes()
    return ({"loss": "min"} if known is None else known).get(metric.partition("/")[2]) or None


def aim(job: Job, metric: str) -> str | None:
    """The same, or where only the user knows, what `expect` says of it."""
    bound = job.expect.get(metric)
    said = {">": "max", "<": "min"}.get(bound.relation[0]) if bound else None
    return best(job, metric) or said


def metric_exists(job: Job, path: Path, name: str, splits: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Whether the job measures a metric on one of these splits."""
    found = job.modes()
    if found is None:
        split, _, metric = name.partition("/")
        if split not in splits or not metric:
            yield path, f"{show(name)} is no metric: say {' or '.join(f'{split}/…' for split in splits)}"
        elif wrong := wrong_name(metric):
            yield path, f"{show(name)} {wrong}"
        return
    known = [
        f"{split}/{metric}" for split in splits for metric in (job.learns if split == "train" else found)
    ]
    if name not in known:
        near = did_you_mean(name, known)
        why = "; the test set is measured only after the run" if name.startswith("test/") else ""
        yield path, f"{job.learner} has no metric {show(name)} here{why}.{near} Known: {', '.join(known)}"
