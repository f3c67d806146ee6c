"""Room for a run's workers, and cores of their own."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from dlsys.jobs.launch.resources import bind_cores

CORES = sorted(os.sched_getaffinity(0))


def bound(cpus: float, local_rank: int, local_size: int) -> list[int]:
    """The cores of a thread of its own after binding it: the affinity is the thread's."""

    def work() -> list[int]:
        bind_cores(cpus, local_rank, local_size)
        return sorted(os.sched_getaffinity(0))

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


@pytest.mark.skipif(len(CORES) < 2, reason="one core cannot be shared out")
def test_workers_that_take_the_machine_share_its_cores_out() -> None:
    parts = [bound(1, rank, len(CORES)) for rank in range(len(CORES))]
    assert parts == [[core] for core in CORES]
    assert sorted(os.sched_getaffinity(0)) == CORES


@pytest.mark.parametrize(("cpus", "size"), [(1, 1), (0.5, 2 * len(CORES)), (1, len(CORES) + 1), (0.5, 2)])
def test_where_others_may_run_nobody_is_bound(cpus: float, size: int) -> None:
    assert bound(cpus, 0, size) == CORES
