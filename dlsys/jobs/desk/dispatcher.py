"""Sees jobs through: gives them to Ray when it is their turn, watches them, starts them again.

Every change is written down before it has any effect, so that a desk that was killed goes on where
it was: what it gave to Ray, Ray knows by the same id.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from dlsys.jobs import secrets
from dlsys.jobs.desk import book, fate, queue
from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.fate import Act, Change
from dlsys.jobs.desk.keeping import Keeping
from dlsys.jobs.desk.ray_api import Node, RayApi, RayAway, RayRefused
from dlsys.jobs.desk.states import ACTIVE, ENDED, WAITING, State
from dlsys.paths import read_json, write_json
from dlsys.plan.room import Bundle, fits

VERBS = {
    "train": ("run", "--resume"),
    "rl": ("run", "--resume"),
    "sweep": ("sweep", "resume"),
    "script": ("run", "--resume"),
}
"""What a job's driver runs, by the kind of what was submitted."""

_LOOK = 0.1
_LOOK_AT_NODES = 1.0
# Looking at a job costs the head a few milliseconds, and may be where it trains.
_YOUNG, _LOOK_AT_OLD = 20.0, 1.0


class Dispatcher:
    """All jobs of one cluster.

    Args:
        name: the cluster's.
        ray: its Ray.
        packages: the folder of packed working folders.
        capacity: tells the nodes that the cluster may have at most, as its file says; an empty one where it
            says no size.
        rates: its nodes' prices now, as a run's `rates.json` has them; None where there are none.
    """

    def __init__(
        self,
        name: str,
        ray: RayApi,
        packages: Path,
        capacity: Callable[[], list[Bundle]],
        rates: Callable[[], dict[str, Any] | None] = lambda: None,
    ) -> None:
        self._name = name
        self._ray = ray
        self._packages = packages
        self._capacity = capacity
        self.rates = rates
        self.keeping: Keeping | None = None
        self._news = asyncio.Event()
        self._nodes_at = 0.0
        self._away: float | None = None
        self._told: set[str] = set()
        self._looked: dict[str, float] = {}
        self.nodes: list[Node] = []
        self.listeners: set[Callable[[], object]] = set()
        self.jobs = {job.id: job for job in book.all_jobs() if job.cluster == name}

    @property
    def away(self) -> float | None:
        """Since when Ray's head has not answered; None while it does."""
        return self._away

    def take(self, job: Job) -> Job:
        """A new job, or the one of this id that is there already."""
        if job.id in self.jobs:
            return self.jobs[job.id]
        self.jobs[job.id] = job
        self._change(job, Change(job.state, ""))
        return job

    def refusal(self, job: Job) -> str:
        """Why a job can never run here; empty if it can."""
        room, declared = self._room, self._capacity()
        grows = not all(declared) and sum(node.alive for node in self.nodes) < len(declared)
        if room and not grows and not fits(job.bundles * max(1, job.times), room):
            need = {key: max(b.get(key, 0.0) for b in job.bundles) for key in ("CPU", "GPU")}
            each = " and ".join(f"{value:g} {key}s" for key, value in need.items() if value)
            have = ", ".join(" ".join(f"{v:g} {k}" for k, v in node.items() if v) or "0 CPU" for node in room)
            count = len(job.bundles) * max(1, job.times)
            return f"{count} workers of {each or '0 CPUs'} do not fit the cluster's nodes ({have})"
        return ""

    def stop(self, job: Job) -> None:
        """Ends a job: at once in the queue, with a last checkpoint where it runs."""
        self._change(job, fate.stopped(job, time.time()))

    def retry(self, job: Job) -> None:
        """Puts a job that has ended back into the queue; it goes on from its last checkpoint."""
        self._change(job, fate.retried(job, time.time()))

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            self._news.clear()
            try:
                await self._turn()
                self._away = None
            except RayAway:
                self._away = self._away or time.time()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), _LOOK if self._busy else 1.0)

    @property
    def _busy(self) -> bool:
        return any(job.state not in ENDED for job in self.jobs.values())

    @property
    def _room(self) -> list[Bundle]:
        """Every node that may be counted on: those of the file, or where it says no sizes, those there are.

        A node that died is started again, and an autoscaler brings one when somebody waits for it.
        """
        there, declared = [node.resources for node in self.nodes if node.alive], self._capacity()
        return declared if declared and all(declared) else there

    async def _turn(self) -> None:
        if time.monotonic() - self._nodes_at > _LOOK_AT_NODES or not self.nodes:
            self.nodes = await self._ray.nodes()
            self._nodes_at = time.monotonic()
        live = [job for job in self.jobs.values() if job.state not in ENDED]
        await asyncio.gather(*(self._follow(job) for job in live if job.state in ACTIVE and self._due(job)))
        made = queue.decide([job for job in live if job.state not in ENDED], self._room)
        for job in made.pause:
            why = f"makes room for {next(iter(made.reasons))}"
            self._change(job, Change(job.state, why, {"asked": "pause"}))
        for job_id, reason in made.reasons.items():
            waiting = self.jobs[job_id]
            if waiting.reason != reason:
                self._change(waiting, Change(waiting.state, reason))
        for job in made.start:
            if job.state in WAITING:  # it may have been stopped while Ray was given another
                await self._start(job)

    def _due(self, job: Job) -> bool:
        """Whether to look at a job again: one that has run for long is not asked ten times a second."""
        now = time.time()
        patience = 0.0 if job.asked or now - (job.since or now) < _YOUNG else _LOOK_AT_OLD
        if now - self._looked.get(job.id, 0.0) < patience:
            return False
        self._looked[job.id] = now
        return True

    async def _start(self, job: Job) -> None:
        if job.secrets and not book.paths_of(job.id).secrets.exists():
            self._fail(job, "its secrets were lost with the cluster's head; submit it again")
            return
        paths = book.paths_of(job.id)
        paths.outcome.unlink(missing_ok=True)  # of an earlier attempt
        if rates := self.rates():
            write_json(paths.rates, rates)
        else:
            paths.rates.unlink(missing_ok=True)
        self._change(job, fate.started(job, time.time()))
        await self._give(job)

    async def _give(self, job: Job) -> None:
        """Gives an attempt to Ray; given before, it is left as it is."""
        log = book.paths_of(job.id).logs / "driver.log"
        places = {key: os.environ[key] for key in ("DLSYS_HOME", "DLSYS_STORE") if key in os.environ}
        variables = {**places, **job.env}
        env: dict[str, object] = {}
        if job.pip:
            env["pip"] = job.pip
        python = "python" if job.pip else sys.executable
        command = [python, "-P", "-m", "dlsys.cli.main", *VERBS[job.kind], job.id]
        try:
            if job.package:
                package = self._packages / job.package
                if self.keeping is not None and not package.exists():
                    await asyncio.to_thread(self.keeping.fetch_package, package)
                await self._ray.upload(package)
                env["working_dir"] = f"gcs://{job.package}"
            enter = secrets.entered(book.paths_of(job.id).secrets) if job.secrets else ""
            line = f"{enter}exec {shlex.join(command)} >> {shlex.quote(str(log))} 2>&1"
            await self._ray.submit(job.ray_id, line, {"env_vars": variables, **env})
        except RayRefused as error:
            self._fail(job, f"Ray refused it: {error}")
        except FileNotFoundError:
            self._fail(job, "its working folder was lost with the cluster's head; submit it again")

    async def _follow(self, job: Job) -> None:
        """Takes note of how an attempt stands, and asks it to stop if it is to."""
        seen = await self._ray.job(job.ray_id)
        lost = seen is not None and seen.node in {node.id for node in self.nodes if not node.alive}
        outcome = read_json(book.paths_of(job.id).outcome) if seen is not None and seen.ended else None
        found = fate.after_look(job, seen, node_lost=lost, outcome=outcome or {}, now=time.time())
        self._change(job, found)
        if found is Act.GIVE:
            await self._give(job)
        elif found is Act.STOP and job.ray_id not in self._told:
            self._told.add(job.ray_id)
            await self._ray.stop(job.ray_id)

    def _fail(self, job: Job, why: str) -> None:
        self._change(job, fate.ended(job, State.FAILED, why, time.time()))

    def _change(self, job: Job, change: Change | Act) -> None:
        """Writes a change down and tells everybody of it."""
        if isinstance(change, Act):
            return
        if change.state in ENDED:
            book.paths_of(job.id).secrets.unlink(missing_ok=True)
        job.move(change.state, change.reason, **change.more)
        book.keep(job)
        self._news.set()
        for listener in list(self.listeners):
            listener()
