"""What a job measures, and which value of it is the best."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from dlsys.registry import did_you_mean
from dlsys.spec.card import Card
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.rl.job import Job, RLJob
from dlsys.spec.section import show
from dlsys.spec.train.job import TrainJob
from dlsys.spec.yaml import Path

# What evaluation episodes tell: of their undiscounted returns the mean, the deviation and the least,
# and their mean length, of which nobody knows whether more is better.
_OF_EPISODES = {"return": "max", "return_std": "min", "return_min": "max", "length": ""}


def card_of(job: TrainJob) -> Card | None:
    """The card of a catalogue workload; None for the user's own."""
    return WORKLOADS.load(job.workload) if job.workload in WORKLOADS else None


def modes(job: Job) -> Mapping[str, str] | None:
    """The metrics of a split, each with `max` or `min` where one of them is the best.

    None where only the user's own code knows.
    """
    if isinstance(job, RLJob):
        return _OF_EPISODES
    card = card_of(job)
    return {"loss": "min", **{name: m.best for name, m in card.metrics.items()}} if card else None


def best(job: Job, metric: str) -> str | None:
    """Whether the largest (`max`) or the smallest (`min`) value of `split/metric` is the best."""
    known = modes(job)
    return ({"loss": "min"} if known is None else known).get(metric.partition("/")[2]) or None


def metric_exists(job: Job, path: Path, name: str, splits: tuple[str, ...]) -> Iterator[tuple[Path, str]]:
    """Whether the job measures a metric on one of these splits."""
    found = modes(job)
    if found is None:
        if not re.fullmatch(rf"({'|'.join(splits)})/[\w@.-]+", name):
            yield path, f"{show(name)} is no metric: say {' or '.join(f'{split}/…' for split in splits)}"
        return
    measured = {"train": ("return", "length") if isinstance(job, RLJob) else ("loss",)}
    known = [f"{split}/{metric}" for split in splits for metric in measured.get(split, found)]
    if name not in known:
        owner = job.algorithm.name if isinstance(job, RLJob) else job.workload
        near = did_you_mean(name, known)
        why = "; the test set is measured only after the run" if name.startswith("test/") else ""
        yield path, f"{owner} has no metric {show(name)} here{why}.{near} Known: {', '.join(known)}"
