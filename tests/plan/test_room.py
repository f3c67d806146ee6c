"""Whether bundles find room on nodes."""

from __future__ import annotations

from dlsys.plan.room import fits

NODES = [{"CPU": 1.0}, {"CPU": 1.0}]


def test_thirds_add_up_to_a_whole():
    assert fits([{"CPU": 1 / 3}] * 3, [{"CPU": 1.0}])


def test_a_bundle_is_not_torn_over_nodes():
    assert not fits([{"CPU": 2.0}], NODES)
    assert fits([{"CPU": 1.0}] * 2, NODES)


def test_a_bundle_needs_all_that_it_asks_for_on_one_node():
    nodes = [{"CPU": 4.0, "GPU": 0.0}, {"CPU": 1.0, "GPU": 1.0}]
    assert fits([{"CPU": 1.0, "GPU": 1.0}, {"CPU": 4.0}], nodes)
    assert not fits([{"CPU": 2.0, "GPU": 1.0}], nodes)
