"""Processes of Ray's that do a part of an agent's work.

What they do depends on what they are asked alone: lost ones start again, and are asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from dlsys.rl.progress import stepped, stepping

# Seconds between two looks at whether they still step.
_LOOK = 2.0


class Counted:
    """What such a process runs: it says how many steps it has done, while it does some."""

    _steps = 0

    def counted(self) -> AbstractContextManager[None]:
        """Within it, its steps count."""
        return stepping(self._count)

    def _count(self) -> None:
        self._steps += 1

    def steps(self) -> int:
        return self._steps


class Actors:
    """As many of them as the job has env runners.

    Args:
        kind: what each of them runs.
        arguments: what each is made with.
        cpus: cores of each.

    Attributes:
        handles: Ray's.
    """

    def __init__(self, kind: type[Counted], arguments: Iterable[tuple[Any, ...]], cpus: float) -> None:
        self.handles: list[Any] = []
        if all_of_them := list(arguments):
            import ray

            # A thread of its own answers how far they are. Ray's types know no concurrency groups.
            remote: Any = ray.remote
            actor = remote(
                num_cpus=cpus, max_restarts=-1, max_task_retries=-1, concurrency_groups={"look": 1}
            )(kind)
            self.handles = [actor.remote(*each) for each in all_of_them]

    def __len__(self) -> int:
        return len(self.handles)

    def ask(self, call: Callable[[Any, int], Any]) -> list[Any]:
        """What each of them answers.

        Args:
            call: makes the call, of a handle and its index.
        """
        calls = [call(one, index) for index, one in enumerate(self.handles)]
        self.wait(calls, len(calls))
        return [answer(each) for each in calls]

    def wait(self, calls: list[Any], count: int) -> list[Any]:
        """Those of some calls that are done, once so many are; a sign of life for each look at which they
        have stepped on."""
        import ray
        from ray.exceptions import RayError

        before = -1
        while True:
            ready, _ = ray.wait(calls, num_returns=count, timeout=_LOOK)
            if len(ready) >= count:
                return list(ready)
            looks = [one.steps.options(concurrency_group="look").remote() for one in self.handles]
            done, _ = ray.wait(looks, num_returns=len(looks), timeout=_LOOK)
            try:
                now = sum(ray.get(done))
            except RayError:  # one that starts again
                continue
            if now != before:
                before = now
                stepped()

    def close(self) -> None:
        if self.handles:
            import ray

            for one in self.handles:
                ray.kill(one)


def answer(call: Any) -> Any:
    """What a call that is done gave; errors are raised as they were there."""
    import ray
    from ray.exceptions import RayTaskError

    try:
        return ray.get(call)
    except RayTaskError as error:
        raise error.cause from None
