"""What the desk writes down, in the cluster's object store too: a new head finds its jobs there."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from dlsys.jobs.desk import book
from dlsys.jobs.desk.book import Job
from dlsys.jobs.desk.states import ENDED
from dlsys.jobs.mirror.files import Files
from dlsys.jobs.mirror.node import refuse_passwords
from dlsys.jobs.mirror.objects import Objects

_LOOK, _AWAY = 1.0, 5.0


class Keeping:
    """Sends jobs' files to the store, behind the desk's back.

    Args:
        store: its address.
        jobs: those of the desk, by id.
    """

    def __init__(self, store: str, jobs: dict[str, Job]) -> None:
        self._objects = Objects(store)
        self._jobs = jobs
        self._sent: dict[str, int] = {}  # what an earlier desk could not send is looked for
        self.error = ""

    @property
    def behind(self) -> int:
        """How many jobs the store does not know the latest of."""
        return len(self._news())

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            try:
                for job_id, written in self._news().items():
                    await asyncio.to_thread(self._send, self._jobs[job_id])
                    self._sent[job_id] = written
                self.error = ""
            except OSError as error:
                if not self.error:
                    sys.stderr.write(f"{error}\n")
                self.error = str(error)
            await asyncio.sleep(_AWAY if self.error else _LOOK)

    def begin(self, job: Job) -> None:
        """Sends a new job, what it is made from first; only then may it be acknowledged.

        Raises:
            OSError: the store does not take it, and does not know of it.
            UsageError: it holds a password.
        """
        paths = book.paths_of(job.id)
        refuse_passwords(paths)
        files = Files(paths, self._objects)
        files.push(all=True)
        book.keep(job)
        try:
            files.push(only=[paths.submission.name])
        except OSError:
            paths.submission.unlink()
            raise

    def send_package(self, package: Path) -> None:
        """Sends a packed working folder."""
        self._objects.upload(package, f"packages/{package.name}")

    def fetch_package(self, package: Path) -> None:
        """Fetches one that was sent to an earlier head."""
        package.parent.mkdir(mode=0o700, exist_ok=True)
        beside = package.with_name(f".{package.name}")
        with suppress(FileNotFoundError):
            self._objects.download(f"packages/{package.name}", beside)
            beside.replace(package)

    def _news(self) -> dict[str, int]:
        written = {job_id: _written(job_id) for job_id in self._jobs}
        return {job_id: when for job_id, when in written.items() if when and when != self._sent.get(job_id)}

    def _send(self, job: Job) -> None:
        paths = book.paths_of(job.id)
        # One that runs sends the rest itself; of one that has ended, its log's last lines are left.
        Files(paths, self._objects).push(only=None if job.state in ENDED else [paths.submission.name])


def _written(job_id: str) -> int:
    try:
        return book.paths_of(job_id).submission.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
