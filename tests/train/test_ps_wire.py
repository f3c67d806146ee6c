from __future__ import annotations

import secrets
import socket
import threading
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from dlsys.train.ps.parts import part, receive_parts, receive_tree, send_parts, send_tree, touched
from dlsys.train.ps.shards import Shard
from dlsys.train.ps.wire import Channel

KEY = secrets.token_hex(32)
TABLE = Shard("table", 0, 50, (50, 8), "float32", table=True)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """Two ends of one connection."""
    ours, theirs = connect(KEY, KEY)
    assert isinstance(theirs, Channel)
    yield ours, theirs
    ours.close()
    theirs.close()


def connect(worker_key: str, server_key: str) -> tuple[Channel, Channel | OSError]:
    found: list[Channel | OSError] = []

    def accept() -> None:
        connected, _ = listener.accept()
        try:
            found.append(Channel.accept(connected, server_key))
        except OSError as error:
            connected.close()
            found.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            ours = Channel.connect(f"127.0.0.1:{listener.getsockname()[1]}", worker_key)
        finally:
            thread.join()
    return ours, found[0]


def test_tensors_arrive_as_they_left(pair: tuple[Channel, Channel]) -> None:
    """Any type and shape; more of them than the system takes at once."""
    sent: list[Tensor] = [torch.randn(300, 3).to(kind) for kind in (torch.float64, torch.bfloat16)]
    sent += [torch.randn(5, 4).t(), torch.tensor(7.0), torch.zeros(0, 3), torch.arange(9)]
    sent += [torch.full((2,), float(i)) for i in range(2500)]
    got = [torch.empty(tensor.shape, dtype=tensor.dtype) for tensor in sent]
    sender = threading.Thread(target=pair[0].send, args=({"ask": "anything", "nan": float("nan")}, sent))
    sender.start()
    header = pair[1].header()
    pair[1].fill(got)
    sender.join()
    assert header["ask"] == "anything"
    assert header["nan"] != header["nan"]
    for before, after in zip(sent, got, strict=True):
        assert torch.equal(before, after)
    assert pair[0].sent == pair[1].received
    assert pair[0].sent > sum(tensor.nbytes for tensor in sent)


def test_who_has_another_key_is_refused() -> None:
    with pytest.raises(OSError):
        connect(secrets.token_hex(32), KEY)


def test_who_claims_to_be_the_server_must_prove_it() -> None:
    """A listener that lets everybody in, and does not know the key."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def pretend() -> None:
            connected, _ = listener.accept()
            with connected:
                connected.sendall(bytes(32))
                connected.recv(64)
                connected.sendall(bytes(32))
                connected.recv(1)

        thread = threading.Thread(target=pretend)
        thread.start()
        with pytest.raises(PermissionError, match="does not know this run's key"):
            Channel.connect(f"127.0.0.1:{listener.getsockname()[1]}", KEY)
        thread.join()


def test_a_peer_that_goes_is_noticed(pair: tuple[Channel, Channel]) -> None:
    pair[0].close()
    with pytest.raises(OSError):
        pair[1].header()


def test_touched_rows_of_a_table_travel(pair: tuple[Channel, Channel]) -> None:
    gradient = torch.zeros(50, 8)
    gradient[3, 2], gradient[41] = float("nan"), 1.0
    target = torch.full((50, 8), 9.0)
    made = part(0, TABLE, gradient, touched(gradient))
    assert made.rows is not None
    assert made.rows.tolist() == [3, 41]
    send_parts(pair[0], {}, [made])
    assert receive_parts(pair[1], pair[1].header(), [target], others_zero=True) == [0]
    assert torch.equal(target.nan_to_num(5.0), gradient.nan_to_num(5.0))
    # 2 rows of 32 bytes, their numbers, and a header of some bytes.
    assert pair[0].sent < 2 * (32 + 4) + 60


def test_a_table_that_is_touched_everywhere_travels_whole() -> None:
    assert part(0, TABLE, torch.ones(50, 8), torch.arange(50)).rows is None


def test_nested_state_travels(pair: tuple[Channel, Channel]) -> None:
    tree = {"a": {"1": torch.randn(3, 2), "step": torch.tensor(4.0)}, "b": [1, (2.5, None)], "c": "text"}
    send_tree(pair[0], {"ask": "load"}, tree)
    header = pair[1].header()
    got = receive_tree(pair[1], header)
    assert header["ask"] == "load"
    assert torch.equal(got["a"]["1"], tree["a"]["1"])
    assert (got["a"]["step"], got["b"], got["c"]) == (torch.tensor(4.0), tree["b"], "text")
