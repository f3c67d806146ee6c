"""What a run cost: node-hours by group, and their price where it is known.

A node belongs to a run for as long as the run's workers are on it, and by the part of it that they
take. Nothing is invented: where one group has no price, the whole has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlsys.spec.section import Condition


@dataclass(frozen=True)
class Stay:
    """A node's part in one attempt at a run. Times are in seconds since 1970.

    Attributes:
        group: of the cluster file; empty for a node that is in none.
        part: of the node that the workers took, from 0 to 1.
        price: of the whole node an hour; None where none is known.
        currency: of the price.
    """

    group: str
    part: float
    price: float | None
    currency: str
    began: float
    until: float

    @property
    def hours(self) -> float:
        """Node-hours."""
        return self.part * (self.until - self.began) / 3600


@dataclass(frozen=True)
class Cost:
    """Node-hours and prices.

    Attributes:
        hours: node-hours by group.
        totals: what they cost, by group; None for a group of which a node had no price.
        currency: empty where no price is known.
        seconds: how long any node was held.
    """

    hours: Mapping[str, float]
    totals: Mapping[str, float | None]
    currency: str
    seconds: float

    @property
    def total(self) -> float | None:
        """Of all groups; None where one has no price."""
        known = [total for total in self.totals.values() if total is not None]
        return sum(known) if known and len(known) == len(self.totals) else None

    def to_dict(self) -> dict[str, Any]:
        """As `--json` prints it."""
        groups = {
            name: {"node_hours": hours, "total": self.totals[name]} for name, hours in self.hours.items()
        }
        node_hours = sum(self.hours.values())
        return {
            "total": self.total,
            "currency": self.currency,
            "node_hours": node_hours,
            "seconds": self.seconds,
            "groups": groups,
        }


def part(taken: Mapping[str, float], node: Mapping[str, float]) -> float:
    """The part of a node that is taken: its share of the CPUs or of the GPUs, whichever is larger."""
    shares = [taken.get(key, 0.0) / node[key] for key in ("CPU", "GPU") if node.get(key)]
    return min(1.0, max(shares, default=0.0))


def cost(stays: Sequence[Stay]) -> Cost:
    """What stays come to; two currencies do not add up, and then there is no price."""
    currencies = {stay.currency for stay in stays if stay.price is not None}
    hours: dict[str, float] = {}
    totals: dict[str, float | None] = {}
    for stay in sorted(stays, key=lambda stay: -stay.hours):
        hours[stay.group] = hours.get(stay.group, 0.0) + stay.hours
        price, before = stay.price if len(currencies) == 1 else None, totals.get(stay.group, 0.0)
        totals[stay.group] = None if price is None or before is None else before + stay.hours * price
    currency = currencies.pop() if len(currencies) == 1 else ""
    return Cost(hours, totals, currency, _covered(stays))


def within(stays: Iterable[Stay], began: float, until: float) -> list[Stay]:
    """What of stays lies between two moments."""
    clipped = [replace(stay, began=max(stay.began, began), until=min(stay.until, until)) for stay in stays]
    return [stay for stay in clipped if stay.until > stay.began]


def first_met(
    records: Iterable[Mapping[str, Any]], bounds: Mapping[str, Condition]
) -> tuple[float, float] | None:
    """When the first step began, and when all bounds first held at once; None if they never did.

    Args:
        records: a spool's, in order: time `t` in ms, step `s`, metrics `m`.
    """
    began: float | None = None
    for record in records:
        if "s" not in record:
            continue
        moment, values = record["t"] / 1000, record["m"]
        if began is None:
            # The first of them tells of all steps so far, by their mean.
            began = moment - record["s"] * values.get("perf/step_seconds", 0.0)
        if all(name in values and bound.holds(values[name]) for name, bound in bounds.items()):
            return began, moment
    return None


def line(found: Mapping[str, Any]) -> str:
    """A cost for people, from its `to_dict`: `0.42 USD: 0.5 node-hours of gpu, 0.1 of head`."""
    groups = found["groups"]
    parts = [f"{_figure(group['node_hours'])} of {name or 'other nodes'}" for name, group in groups.items()]
    text = ", ".join(parts).replace(" of ", " node-hours of ", 1)
    if found["total"] is not None:
        return f"{_figure(found['total'])} {found['currency']}: {text}"
    without = [name or "other nodes" for name, group in groups.items() if group["total"] is None]
    return f"{text}; {'not all' if len(without) == len(groups) else ', '.join(without)} without a price"


def _covered(stays: Iterable[Stay]) -> float:
    """The length of the time in which there is any stay."""
    seconds, end = 0.0, float("-inf")
    for stay in sorted(stays, key=lambda stay: stay.began):
        seconds += max(0.0, stay.until - max(stay.began, end))
        end = max(end, stay.until)
    return seconds


def _figure(value: float) -> str:
    return f"{value:,.2f}".rstrip("0").rstrip(".") if value >= 0.1 else f"{value:.2g}"
