"""A cluster in an allocation of Slurm's: a batch job that runs Ray on every node and the queue on the first.

The job, the queue and this machine meet in a folder below the cluster's `storage`, which all of them
see. The queue listens on its node's loopback alone; the way to it is ssh.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from dlsys.cluster.commands import ssh_command, ssh_tunnel
from dlsys.cluster.places import ClusterPaths, Endpoint
from dlsys.cluster.provider import Finding
from dlsys.cluster.slurm_script import script
from dlsys.errors import DlsysError, RunError, UsageError
from dlsys.paths import read_json
from dlsys.spec import yaml
from dlsys.spec.cluster.providers import Slurm
from dlsys.spec.load import load_cluster

# Seconds between two looks at Slurm, which asks its users not to look often.
_LOOK = 2.0
_DOWN_WITHIN = 180.0
# States that are the last of a job; what squeue and sacct no longer know is gone.
_ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
_ENDED |= {"PREEMPTED", "REVOKED", "TIMEOUT"}
_GONE = "gone"


@dataclass(frozen=True)
class _Seen:
    """What Slurm says of a job.

    Attributes:
        state: in Slurm's word, or "gone".
        host: its first node, once it has nodes.
        reason: why it waits, in Slurm's word.
    """

    state: str
    host: str = ""
    reason: str = ""

    @property
    def lives(self) -> bool:
        return self.state not in _ENDED and self.state != _GONE

    def __str__(self) -> str:
        if self.state == "RUNNING":
            return f"RUNNING on {self.host}"
        return f"{self.state} ({self.reason})" if self.reason not in ("", "None") else self.state


class SlurmProvider:
    """A cluster in a Slurm allocation. Works on a machine that has Slurm's commands and sees `storage`.

    Args:
        cluster: what it is to be.
        paths: its files on this machine.
    """

    def __init__(self, cluster: Slurm, paths: ClusterPaths) -> None:
        self._cluster = cluster
        self._paths = paths
        self._folder = Path(cluster.storage) / "clusters" / cluster.name

    def render(self) -> dict[str, str]:
        return {f"{self._cluster.name}.sbatch": script(self._cluster, self._folder)}

    def up(self, say: Callable[[str], None]) -> None:
        self._paths.make()
        with self._paths.locked():
            job = self._job
            if job and _look(job).state == "COMPLETING":
                self._await_end(job)
            if job and (seen := _look(job)).lives:
                self._check_unchanged()
                say(f"Slurm job {job} is there already: {seen}")
            else:
                job = self._submit()
                say(f"Slurm job {job} is in the queue; `dlsys cluster down {self._paths.name}` takes it back")
            self._await_desk(job, say)

    def down(self, say: Callable[[str], None]) -> None:
        if not self._paths.root.exists():
            return
        with self._paths.locked():
            job = self._job
            if job and _look(job).lives:
                _said("scancel", job)
                say(f"Slurm job {job} is cancelled")
                self._await_end(job)
            if self._folder.exists():
                self._claim()
                (self._folder / "token").unlink(missing_ok=True)
                # Over NFS, what a dying process still holds open cannot be removed yet.
                shutil.rmtree(self._folder, ignore_errors=True)
            shutil.rmtree(self._paths.root)
        say(f"{self._paths.name} is down; runs in {self._cluster.storage} are kept")

    def alive(self) -> bool:
        with suppress(DlsysError):
            return bool(self._job) and _look(self._job).state == "RUNNING"
        return False

    @contextmanager
    def connect(self) -> Iterator[Endpoint]:
        seen = _look(self._job) if self._job else _Seen(_GONE)
        desk = read_json(self._folder / "desk.json")
        if seen.state != "RUNNING" or desk is None:
            why = f"its Slurm job {self._job} is {seen}" if self._job else "it has no Slurm job"
            raise RunError(
                f"cluster {self._paths.name} is not up: {why}", hint=f"dlsys cluster up {self._paths.name}"
            )
        with ssh_tunnel(ssh_command(), seen.host, int(desk["port"])) as port:
            yield Endpoint(f"http://127.0.0.1:{port}", self._paths.read_token())

    def doctor(self) -> Iterator[Finding]:
        for program in ("sbatch", "squeue", "scancel", "ssh"):
            found = shutil.which(program)
            mend = "" if found else "Use a login node of the Slurm cluster."
            yield Finding(bool(found), f"{program} is {found or 'missing'}", mend)
        yield self._storage_finding()
        try:
            if self._cluster.partition:
                yield self._partition_finding(self._cluster.partition)
            if job := self._job:
                seen = _look(job)
                mend = f"See {self._log(job)}, then: dlsys cluster up {self._paths.name}"
                yield Finding(seen.lives, f"Slurm job {job}: {seen}", "" if seen.lives else mend)
        except DlsysError as error:
            yield Finding(False, str(error), error.hint)

    @property
    def _job(self) -> str:
        """The Slurm job's id; empty before there is one."""
        return str(self._paths.read_state().get("job", ""))

    def _log(self, job: str) -> Path:
        return self._folder / "logs" / f"{job}.log"

    def _check_unchanged(self) -> None:
        """Refuses what would have no effect.

        Raises:
            UsageError: the cluster's file is another than that of the job.
        """
        if load_cluster(self._paths.source).cluster != self._cluster:
            raise UsageError(
                f"{self._paths.name} is up, and its allocation cannot change",
                hint=f"dlsys cluster down {self._paths.name}, then up again.",
            )

    def _submit(self) -> str:
        """Writes the folder that the job needs, and hands the job to Slurm."""
        ((name, text),) = self.render().items()
        try:
            self._folder.parent.mkdir(parents=True, exist_ok=True)
            self._folder.mkdir(mode=0o700, exist_ok=True)
            self._claim()
            (self._folder / "logs").mkdir(mode=0o700, exist_ok=True)
            (self._folder / "desk.json").unlink(missing_ok=True)
            file = yaml.dump(self._cluster.model_dump(mode="json"))
            _write(self._folder / "cluster.yaml", file)
            _write(self._folder / "token", self._paths.read_token())
            _write(self._folder / name, text)
            _write(self._paths.source, file)
        except OSError as error:
            raise UsageError(
                f"{error.filename or self._folder}: cannot be written: {error.strerror}",
                hint="storage must be a folder that this machine and all nodes see, and that is yours.",
            ) from error
        # `123`, or `123;cluster` where Slurm has several.
        job = _said("sbatch", "--parsable", str(self._folder / name)).strip().partition(";")[0]
        if not job.isdecimal():
            raise RunError(f"sbatch said {job!r}, and no job's number")
        self._paths.write_state({"provider": "slurm", "job": job})
        return job

    def _claim(self) -> None:
        """Makes sure that nobody else can read or plant what lies in the folder.

        Raises:
            UsageError: it is another user's, or a link.
        """
        info = self._folder.lstat()
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
            raise UsageError(
                f"{self._folder}: is not a folder of yours", hint="Give the cluster another name or storage."
            )
        self._folder.chmod(0o700)

    def _await_desk(self, job: str, say: Callable[[str], None]) -> None:
        told = ""
        while True:
            seen = _look(job)
            if not seen.lives:
                log = self._log(job)
                words = "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""
                raise RunError(
                    f"Slurm job {job} ended ({seen}) before its queue took jobs"
                    + (f":\n{words}" if words else ""),
                    hint=f"All of its log: {log}",
                )
            if seen.state == "RUNNING" and read_json(self._folder / "desk.json"):
                return
            if str(seen) != told:
                told = str(seen)
                say(f"Slurm job {job}: {told}")
            time.sleep(_LOOK)

    def _await_end(self, job: str) -> None:
        deadline = time.monotonic() + _DOWN_WITHIN
        while (seen := _look(job)).lives:
            if time.monotonic() > deadline:
                raise RunError(
                    f"Slurm job {job} does not end: {seen}",
                    hint=f"Later: dlsys cluster down {self._paths.name}",
                )
            time.sleep(_LOOK)

    def _storage_finding(self) -> Finding:
        storage = Path(self._cluster.storage)
        nearest = next(folder for folder in (storage, *storage.parents) if os.path.exists(folder))
        try:
            with tempfile.TemporaryFile(dir=nearest):
                pass
        except OSError as error:
            return Finding(
                False,
                f"{nearest} cannot be written: {error.strerror}",
                "storage must be a folder that this machine and all nodes see.",
            )
        return Finding(True, f"{nearest} can be written")

    def _partition_finding(self, wanted: str) -> Finding:
        known = _said("sinfo", "--noheader", "--format=%R").split()
        if missing := [name for name in wanted.split(",") if name not in known]:
            return Finding(
                False, f"there is no partition {', '.join(missing)}", f"Known: {', '.join(sorted(known))}"
            )
        return Finding(True, f"partition {wanted} is there")


def _look(job: str) -> _Seen:
    """What Slurm says of a job.

    Raises:
        DlsysError: Slurm does not answer.
    """
    line = ""
    try:
        line = _said("squeue", "--noheader", "--states=all", f"--jobs={job}", "--format=%T|%B|%r")
    except RunError as error:
        if "Invalid job id" not in str(error):
            raise
    if line.strip():
        return _Seen(*line.splitlines()[0].strip().split("|", 2))
    # squeue forgets a job some minutes after its end; the accounting, where there is one, does not.
    with suppress(DlsysError):
        words = _said(
            "sacct", "--noheader", "--allocations", "--parsable2", f"--jobs={job}", "--format=State"
        )
        return _Seen(words.split()[0] if words.split() else _GONE)  # `CANCELLED by 1000`
    return _Seen(_GONE)


def _said(*command: str) -> str:
    """What a command of Slurm's prints.

    Raises:
        UsageError: it is not on this machine.
        RunError: it refused, with its own words.
    """
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False
        )
    except FileNotFoundError as error:
        raise UsageError(
            f"{command[0]} is not on this machine", hint="Use a login node of the Slurm cluster."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise RunError(
            f"{command[0]} does not answer", hint="Is Slurm's controller up? scontrol ping"
        ) from error
    if done.returncode:
        words = (done.stderr or done.stdout).strip() or f"it ended with {done.returncode}"
        raise RunError(f"{command[0]} refused: {words}")
    return done.stdout


def _write(path: Path, text: str) -> None:
    """Replaces a file; its owner alone may read it."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
