"""What `dlsys doctor` looks at: this machine, what is installed, the store, and what runs have left."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from dlsys.cluster.provider import Finding
from dlsys.jobs.doctor import leftovers, machine, software, store

CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    software.python,
    software.packages,
    software.extras,
    software.programs,
    machine.processors,
    machine.shared_memory,
    machine.open_files,
    machine.disks,
    machine.gpus,
    store.tracking,
    leftovers.runs,
    leftovers.cache,
    leftovers.ray,
)


def examine() -> Iterator[Finding]:
    """What each of them finds. None starts anything, or changes what it looks at."""
    for check in CHECKS:
        try:
            yield from check()
        except Exception as error:  # one that fails must not hide what the others find
            name = f"{check.__module__.rpartition('.')[2]}.{check.__name__}"
            yield Finding(False, f"{name} could not be looked at: {error}", serious=False)
