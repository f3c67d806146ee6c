"""A node that died is told from one that lives before Ray gives it up."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from typing import Any

import psutil
import pytest

from dlsys import processes
from dlsys.cli.cluster import _state
from dlsys.jobs.desk.ray_api import Node


def node(port: int) -> Node:
    return Node("id", "worker-0", "127.0.0.1", True, {"CPU": 1.0}, port)


def test_a_node_answers_as_long_as_something_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        assert asyncio.run(node(port).answers())
    assert not asyncio.run(node(port).answers())


@pytest.mark.parametrize(
    ("told", "state"),
    [
        ({"alive": True, "answers": True}, "alive"),
        ({"alive": True, "answers": False}, "silent"),
        ({"alive": False, "answers": False}, "dead"),
        ({"alive": True}, "alive"),
    ],
)
def test_what_status_says(told: dict[str, Any], state: str) -> None:
    assert _state(told) == state


def test_a_zombie_does_not_live() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    try:
        assert processes.lives(psutil.Process().pid)
        while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.02)
        assert not processes.lives(child.pid)
    finally:
        child.wait()
    assert not processes.lives(child.pid)
