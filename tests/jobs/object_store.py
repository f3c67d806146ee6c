"""An S3 server on this machine: moto's, which keeps all in memory."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dlsys.cluster.commands import answers, free_port


@dataclass(frozen=True)
class Server:
    """Attributes:
    process: the server's.
    url: where it answers.
    """

    process: subprocess.Popen[bytes]
    url: str

    @property
    def environment(self) -> dict[str, str]:
        """What sends S3's clients to it, and keeps them from looking for rights elsewhere."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def make(self, bucket: str) -> str:
        urllib.request.urlopen(urllib.request.Request(f"{self.url}/{bucket}", method="PUT")).close()
        return f"s3://{bucket}/dlsys"


@contextmanager
def server(log: Path, port: int | None = None) -> Iterator[Server]:
    port = port or free_port()
    with open(log, "wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    made = Server(process, f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + 60
        while not answers(f"{made.url}/moto-api/"):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, "the S3 server does not answer"
            time.sleep(0.05)
        yield made
    finally:
        process.kill()
        process.wait()
