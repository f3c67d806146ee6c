from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dlsys.train.ps.shards import Layout, share_out

MODEL = {
    "table": torch.zeros(1000, 16),
    "wide": torch.zeros(8, 4096),
    "bias": torch.zeros(7),
    "scalar": torch.zeros(()),
    "double": torch.zeros(3, 5, dtype=torch.float64),
    "one row": torch.zeros(1, 9999),
}
PHASES = {"main": list(MODEL.items())}


@pytest.mark.parametrize("servers", [1, 2, 3, 40])
@pytest.mark.parametrize("split_bytes", [512, 20_000, 2**22])
def test_every_row_is_held_once(servers: int, split_bytes: int) -> None:
    layouts = share_out(PHASES, {"table"}, servers=servers, split_bytes=split_bytes)
    assert len(layouts) == servers
    marks = {name: torch.zeros(tensor.shape) for name, tensor in MODEL.items()}
    for layout in layouts:
        assert layout.phases["main"] == tuple(range(len(layout.shards)))
        for shard in layout.shards:
            part = shard.of(marks[shard.name])
            assert part.shape == shard.shape
            assert shard.bytes == part.numel() * MODEL[shard.name].element_size()
            # A row is never cut, however small the pieces should be.
            assert shard.bytes <= split_bytes + shard.row_bytes
            assert shard.table == (shard.name == "table")
            part += 1
    assert all(bool((mark == 1).all()) for mark in marks.values())


def test_servers_hold_about_as_many_bytes() -> None:
    layouts = share_out(PHASES, (), servers=3, split_bytes=2**14)
    loads = [sum(shard.bytes for shard in layout.shards) for layout in layouts]
    assert max(loads) <= 4 / 3 * sum(loads) / 3 + 2**14


def test_phases_share_servers() -> None:
    phases: dict[str, list[tuple[str, Tensor]]] = {
        "generator": [("g", torch.zeros(64, 8))],
        "critic": [("c", torch.zeros(64, 8))],
    }
    layouts = share_out(phases, (), servers=2, split_bytes=512)
    for layout in layouts:
        held = {phase: {layout.shards[i].name for i in numbers} for phase, numbers in layout.phases.items()}
        assert held == {"generator": {"g"}, "critic": {"c"}}


def test_a_layout_survives_its_way_to_the_server() -> None:
    for layout in share_out(PHASES, {"table"}, servers=2, split_bytes=512):
        assert Layout.from_dict(layout.to_dict()) == layout
