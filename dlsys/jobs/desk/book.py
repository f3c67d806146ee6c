"""What the desk knows of jobs: one small file in each job's folder, replaced as a whole at each change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from dlsys.jobs.desk.states import NEXT, State
from dlsys.paths import RunPaths, read_json, write_json
from dlsys.plan.room import Bundle


@dataclass
class Job:
    """A job: what was asked for, and what became of it. Times are in seconds since 1970.

    Attributes:
        id: the id of its run, decided by who submits it: sent twice, it is still one job.
        kind: `train`, `rl`, `sweep` or `script`.
        cluster: the cluster's name.
        bundles: what each of its workers needs, `{"CPU": 1}`.
        times: how often all of that: a sweep's concurrent trials; 0 is as often as it fits.
        submitted: when.
        package: the name of the packed working folder, `<sha256>.zip`; empty without one.
        pip: requirements that its processes need beside what the nodes have.
        env: environment variables that are no secrets.
        secrets: the names of those that are.
        priority: higher goes first.
        retries: how often it is started again when it dies without a verdict.
        state: how it stands; changed by `move` alone.
        reason: why it is in this state, in a sentence.
        attempt: how often it was given to Ray.
        deaths: how often it died without a verdict.
        asked: what it was asked to do: `stop`, `pause`, or nothing.
        started: when it was first given to Ray.
        ended: when it ended.
        ran: seconds in which it held its resources, over all attempts.
        since: when the present attempt began to hold them.
        exit_code: of its process.
    """

    id: str
    kind: str
    cluster: str
    bundles: list[Bundle]
    submitted: float
    times: int = 1
    package: str = ""
    pip: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    priority: int = 0
    retries: int = 3
    state: State = State.QUEUED
    reason: str = ""
    attempt: int = 0
    deaths: int = 0
    asked: str = ""
    started: float | None = None
    ended: float | None = None
    ran: float = 0.0
    since: float | None = None
    exit_code: int | None = None

    def __post_init__(self) -> None:
        self.state = State(self.state)  # a file holds its name

    @property
    def ray_id(self) -> str:
        """What Ray knows this attempt as: given twice, Ray takes it once."""
        return f"{self.id}.{self.attempt}"

    @property
    def resumable(self) -> bool:
        """Whether it goes on from its last checkpoint when it is started again.

        Of a script nobody knows that but its user, who says it by allowing retries.
        """
        return self.kind != "script" or self.retries > 0

    def move(self, state: State, reason: str, **more: Any) -> None:
        """Changes the state, its reason, and other fields.

        Raises:
            ValueError: the state cannot follow the present one.
        """
        if state not in NEXT[self.state]:
            raise ValueError(f"{self.id}: {state} cannot follow {self.state}")
        self.state, self.reason = state, reason
        for name, value in more.items():
            setattr(self, name, value)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def keep(job: Job) -> None:
    """Writes a job down; only then may anything be done about it."""
    write_json(paths_of(job.id).submission, job.to_dict())


def paths_of(job_id: str) -> RunPaths:
    from dlsys.paths import home

    return RunPaths(home() / "runs" / job_id)


def read(paths: RunPaths) -> Job | None:
    """The job of a run's folder; None for a run that was never submitted."""
    found = read_json(paths.submission)
    if found is None:
        return None
    known = {each.name for each in fields(Job)}
    return Job(**{key: value for key, value in found.items() if key in known})


def all_jobs() -> Iterator[Job]:
    """Every job of every cluster that keeps its runs here, oldest first."""
    for paths in RunPaths.all():
        if job := read(paths):
            yield job
