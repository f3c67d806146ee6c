"""What travels between a worker and a parameter server: short JSON headers and raw tensor bytes.

Nothing is pickled, and nothing is read from a peer that has not proved that it knows the run's
key. The bytes themselves are neither encrypted nor signed, as with gloo and NCCL: servers belong
on a network that is trusted.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlsys.errors import RunError, WorkerDiedError

_LENGTH = struct.Struct("!I")
_LONGEST_HEADER = 64 * 2**20
_NONCE = 32
# The system takes at most this many buffers at once (IOV_MAX).
_BUFFERS = 1024
# Loopback and fast networks move more at once than the system's default window.
_WINDOW = 4 * 2**20
# Seconds for a server that has yet to import torch to greet a worker.
_PATIENCE = 60.0


@dataclass(frozen=True)
class Servers:
    """Where a run's parameter servers are.

    Attributes:
        addresses: `host:port` of each server, in order.
        key: the run's secret, in hex.
    """

    addresses: tuple[str, ...]
    key: str


class Channel:
    """One authenticated connection, used by one thread at a time.

    Attributes:
        sent, received: bytes so far.

    Raises (every method):
        OSError: the peer is gone.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _WINDOW)
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _WINDOW)
        self._socket = connected
        self.sent = self.received = 0

    @classmethod
    def connect(cls, address: str, key: str) -> Channel:
        """Connects to a server, and proves to it, and has it prove, who is who.

        Raises:
            OSError: nobody answers there, or somebody without the key.
        """
        host, _, port = address.rpartition(":")
        connected = socket.create_connection((host, int(port)), timeout=_PATIENCE)
        try:
            theirs = _exactly(connected, _NONCE)
            ours = secrets.token_bytes(_NONCE)
            connected.sendall(ours + _proof(key, b"worker", theirs + ours))
            if not hmac.compare_digest(_exactly(connected, 32), _proof(key, b"server", theirs + ours)):
                raise PermissionError(f"{address} does not know this run's key")
            connected.settimeout(None)
        except BaseException:
            connected.close()
            raise
        return cls(connected)

    @classmethod
    def accept(cls, connected: socket.socket, key: str) -> Channel:
        """The server's side of `connect`.

        Raises:
            OSError: the peer does not know the key.
        """
        connected.settimeout(_PATIENCE)
        ours = secrets.token_bytes(_NONCE)
        connected.sendall(ours)
        answer = _exactly(connected, _NONCE + 32)
        theirs, proof = answer[:_NONCE], answer[_NONCE:]
        if not hmac.compare_digest(proof, _proof(key, b"worker", ours + theirs)):
            raise PermissionError("a peer without this run's key")
        connected.sendall(_proof(key, b"server", ours + theirs))
        connected.settimeout(None)
        return cls(connected)

    def send(self, header: dict[str, Any], tensors: Sequence[Tensor] = ()) -> None:
        """A header, and the bytes of tensors (any shape, on the CPU) behind it, without a copy."""
        text = json.dumps(header).encode()
        buffers = [memoryview(_LENGTH.pack(len(text)) + text), *map(_bytes, tensors)]
        first = 0
        while first < len(buffers):
            count = self._socket.sendmsg(buffers[first : first + _BUFFERS])
            self.sent += count
            first = _passed(buffers, first, count)

    def header(self) -> dict[str, Any]:
        """The next header."""
        (length,) = _LENGTH.unpack(_exactly(self._socket, _LENGTH.size))
        if length > _LONGEST_HEADER:
            raise ConnectionError(f"a header of {length} bytes")
        self.received += _LENGTH.size + length
        found: dict[str, Any] = json.loads(_exactly(self._socket, length))
        return found

    def answer(self) -> dict[str, Any]:
        """The next header, from a peer that was asked something.

        Raises:
            WorkerDiedError: it waited for a worker that is gone.
            RunError: it failed.
        """
        found = self.header()
        if "error" in found:
            raise (WorkerDiedError if found["lost"] else RunError)(found["error"])
        return found

    def fill(self, tensors: Sequence[Tensor]) -> None:
        """Receives into contiguous tensors on the CPU."""
        buffers = [_bytes(tensor) for tensor in tensors]
        first = _passed(buffers, 0, 0)
        while first < len(buffers):
            count = self._socket.recvmsg_into(buffers[first : first + _BUFFERS])[0]
            if not count:
                raise ConnectionResetError("the peer is gone")
            self.received += count
            first = _passed(buffers, first, count)

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes a thread that reads
        self._socket.close()


def _bytes(tensor: Tensor) -> memoryview:
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    return flat.numpy().data


def _passed(buffers: list[memoryview], first: int, count: int) -> int:
    """Steps over `count` bytes from buffer `first` on; the first buffer that is not done."""
    while first < len(buffers) and count >= len(buffers[first]):
        count -= len(buffers[first])
        first += 1
    if count:
        buffers[first] = buffers[first][count:]
    return first


def _exactly(connected: socket.socket, count: int) -> bytes:
    parts = bytearray()
    while len(parts) < count:
        part = connected.recv(count - len(parts))
        if not part:
            raise ConnectionResetError("the peer is gone")
        parts += part
    return bytes(parts)


def _proof(key: str, who: bytes, nonces: bytes) -> bytes:
    return hmac.digest(bytes.fromhex(key), who + nonces, "sha256")
