"""What a cluster file says of prices and room, for a plan."""

from __future__ import annotations

from typing import Any

from dlsys.errors import UsageError
from dlsys.plan.cost import part
from dlsys.spec.cluster.providers import Cluster
from dlsys.spec.train.job import Resources


def price_of(cluster: Cluster, need: Resources) -> float:
    """What a job's workers cost an hour: on the dearest group that they could be on.

    Raises:
        UsageError: none has room for one, or one of those that have has no price.
    """
    taken = {"CPU": float(need.cpus), "GPU": float(need.gpus)}
    able = [group for group in cluster.nodes if _fit(group, need)]
    if not able:
        raise UsageError(
            f"cluster {cluster.name}: no group has room for a worker, as far as its file says",
            hint="Give its groups `cpus:` and `gpus:`, or say --price-per-hour.",
        )
    if unpriced := [group.name for group in able if group.price is None]:
        raise UsageError(
            f"cluster {cluster.name}: {', '.join(unpriced)} has no price",
            hint="Give it a `price:` an hour, or say --price-per-hour.",
        )
    return need.workers * max(part(taken, _size(group)) * float(group.price) for group in able)


def room(cluster: Cluster, need: Resources) -> int:
    """How many such jobs a cluster of its largest size trains at a time."""
    return sum(_count(group) * _fit(group, need) for group in cluster.nodes) // need.workers


def _fit(group: Any, need: Resources) -> int:
    """How many workers one of the group's nodes holds."""
    size, wanted = _size(group), {"CPU": need.cpus, "GPU": need.gpus}
    return min(int(size[key] // value) for key, value in wanted.items() if value)


def _size(group: Any) -> dict[str, float]:
    return {"CPU": float(group.cpus or 0), "GPU": float(group.gpus or 0)}


def _count(group: Any) -> int:
    hosts = getattr(group, "hosts", None)
    return len(hosts) if hosts else int(getattr(group, "max", None) or group.count)
