from __future__ import annotations

import math

import pytest

from dlsys.plan.cost import Stay, cost, first_met, line, part, within
from dlsys.spec.section import Condition

HOUR = 3600.0


def stay(group: str = "gpu", **more: object) -> Stay:
    given = {"part": 1.0, "price": 2.0, "currency": "USD", "began": 0.0, "until": HOUR}
    return Stay(group, **{**given, **more})  # type: ignore[arg-type]


def test_a_part_of_a_node_is_the_larger_of_its_shares() -> None:
    node = {"CPU": 8.0, "GPU": 4.0}
    assert part({"CPU": 2.0, "GPU": 2.0}, node) == 0.5
    assert part({"CPU": 6.0, "GPU": 1.0}, node) == 0.75
    assert part({"CPU": 6.0, "GPU": 0.0}, {"CPU": 4.0, "GPU": 0.0}) == 1.0
    assert part({"CPU": 1.0, "GPU": 0.0}, {}) == 0.0


def test_hours_and_prices_add_up_by_group() -> None:
    found = cost([stay(part=0.5), stay(began=HOUR, until=2 * HOUR), stay("head", price=1.0, part=0.25)])
    assert found.hours == {"gpu": 1.5, "head": 0.25}
    assert found.totals == {"gpu": 3.0, "head": 0.25}
    assert (found.total, found.currency, found.seconds) == (3.25, "USD", 2 * HOUR)


def test_time_between_attempts_and_time_shared_by_nodes_are_counted_right() -> None:
    again = stay(began=10 * HOUR, until=11 * HOUR)
    found = cost([stay(), stay("head", until=HOUR / 2), again])
    assert found.seconds == 2 * HOUR
    assert found.hours == {"gpu": 2.0, "head": 0.5}


def test_no_price_is_made_up() -> None:
    mixed = cost([stay(), stay("head", price=None, currency="")])
    assert mixed.total is None
    assert mixed.totals == {"gpu": 2.0, "head": None}
    later = cost([stay(price=None, currency=""), stay()])
    assert later.totals == {"gpu": None}
    abroad = cost([stay(), stay("head", currency="EUR")])
    assert abroad.total is None
    assert abroad.currency == ""
    assert cost([]).total is None
    assert cost([stay(price=0.0)]).total == 0.0


def test_within_clips() -> None:
    found = within([stay(), stay(began=2 * HOUR, until=3 * HOUR)], HOUR / 2, 2.5 * HOUR)
    assert cost(found).seconds == HOUR
    assert within([stay()], 2 * HOUR, 3 * HOUR) == []


def test_the_target_is_met_when_all_its_bounds_hold_at_once() -> None:
    bounds = {"valid/accuracy": Condition(">=", 0.9), "valid/loss": Condition("<", 0.5)}
    records = [
        {"t": 1000, "note": "begins"},
        {"t": 20_000, "s": 4, "m": {"train/loss": 2.0, "perf/step_seconds": 2.0}},
        {"t": 30_000, "s": 4, "m": {"valid/accuracy": 0.95, "valid/loss": 0.6}},
        {"t": 40_000, "s": 8, "m": {"valid/accuracy": 0.8, "valid/loss": 0.4}},
        {"t": 50_000, "s": 12, "m": {"valid/accuracy": math.nan, "valid/loss": 0.4}},
        {"t": 60_000, "s": 16, "m": {"valid/accuracy": 0.9, "valid/loss": 0.4}},
        {"t": 70_000, "s": 20, "m": {"valid/accuracy": 1.0, "valid/loss": 0.1}},
    ]
    assert first_met(records, bounds) == (12.0, 60.0)
    assert first_met(records[:5], bounds) is None
    assert first_met([], bounds) is None


@pytest.mark.parametrize(
    ("stays", "text"),
    [
        ([stay(part=0.2), stay("head", part=0.1, price=0.2)], "0.42 USD: 0.2 node-hours of gpu, 0.1 of head"),
        ([stay(part=0.0042, price=0.1)], "0.00042 USD: 0.0042 node-hours of gpu"),
        ([stay(until=1500 * HOUR)], "3,000 USD: 1,500 node-hours of gpu"),
        (
            [stay(), stay("", price=None, part=0.5)],
            "1 node-hours of gpu, 0.5 of other nodes; other nodes without a price",
        ),
    ],
)
def test_a_line_for_people(stays: list[Stay], text: str) -> None:
    assert line(cost(stays).to_dict()) == text
