"""Talks to a cluster's desk. Only the standard library: a submission is acknowledged sooner so."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from dlsys.cluster.places import Endpoint
from dlsys.errors import RunError, UsageError

# A desk that was killed is started again, and all requests can be repeated.
_PATIENCE = 30.0
_PAUSE = 0.25
_ANSWER = 70.0


class NotFoundError(UsageError):
    """The cluster has no such job."""


class Desk:
    """A cluster's queue of jobs.

    Args:
        endpoint: where it answers.
        name: the cluster's, for messages.
    """

    def __init__(self, endpoint: Endpoint, name: str) -> None:
        self._endpoint = endpoint
        self._name = name

    def health(self) -> dict[str, Any]:
        return dict(self._json("GET", "/health"))

    def nodes(self) -> list[dict[str, Any]]:
        """Ray's nodes: id, name, host, alive, resources."""
        return list(self._json("GET", "/nodes"))

    def jobs(self) -> list[dict[str, Any]]:
        return list(self._json("GET", "/jobs"))

    def submit(self, submission: dict[str, Any]) -> dict[str, Any]:
        """Hands a job in; handed in again, it is the same job.

        Raises:
            UsageError: it cannot run there.
        """
        return dict(self._json("POST", "/jobs", submission))

    def job(self, job_id: str, *, after: int | None = None, wait: float = 0) -> dict[str, Any]:
        """How a job stands.

        Args:
            job_id: the beginning of its id.
            after: the last `change` seen: answers when there is a newer one.
            wait: or after so many seconds.

        Raises:
            NotFoundError: there is no such job.
        """
        query = f"?{urlencode({'after': after, 'wait': wait})}" if after is not None else ""
        return dict(self._json("GET", f"/jobs/{quote(job_id)}{query}"))

    def stop(self, job_id: str) -> dict[str, Any]:
        return dict(self._json("POST", f"/jobs/{quote(job_id)}/stop"))

    def retry(self, job_id: str) -> dict[str, Any]:
        return dict(self._json("POST", f"/jobs/{quote(job_id)}/retry"))

    def logs(self, job_id: str, *, rank: int | None = None, follow: bool = False) -> Iterator[bytes]:
        """A job's log in pieces; with `follow`, until the job has ended."""
        offset = 0
        while True:
            query: dict[str, Any] = {"offset": offset, "follow": int(follow)}
            if rank is not None:
                query["rank"] = rank
            connection, answer = self._open("GET", f"/jobs/{quote(job_id)}/logs?{urlencode(query)}")
            try:
                while piece := answer.read1(1 << 16):
                    offset += len(piece)
                    yield piece
                return
            except (OSError, http.client.HTTPException):
                if not follow:
                    raise
            finally:
                connection.close()

    def upload(self, package: Path) -> None:
        """Brings a packed working folder, unless it is there."""
        try:
            self._json("GET", f"/packages/{package.name}")
        except NotFoundError:
            self._json("PUT", f"/packages/{package.name}", package)

    def _json(self, method: str, path: str, body: Any = None) -> Any:
        connection, answer = self._open(method, path, body)
        try:
            return json.loads(answer.read())
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, body: Any = None
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """One request; tried again while nothing answers.

        Raises:
            RunError: nothing answers.
            UsageError: the desk refuses, in its own words.
        """
        place = urlsplit(self._endpoint.url)
        deadline = time.monotonic() + _PATIENCE
        while True:
            connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=_ANSWER)
            try:
                headers = {"Authorization": f"Bearer {self._endpoint.token}"}
                if isinstance(body, Path):
                    with open(body, "rb") as file:
                        headers["Content-Length"] = str(body.stat().st_size)
                        connection.request(method, path, file, headers)
                        answer = connection.getresponse()
                else:
                    text = None if body is None else json.dumps(body)
                    connection.request(method, path, text, headers | {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                break
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                if time.monotonic() > deadline:
                    raise RunError(
                        f"cluster {self._name} does not answer at {self._endpoint.url}: {error}",
                        hint=f"dlsys cluster doctor {self._name}",
                    ) from error
                time.sleep(_PAUSE)
        if answer.status == 200:
            return connection, answer
        said = answer.read().decode(errors="replace")
        connection.close()
        try:
            said = json.loads(said)["error"]
        except (ValueError, KeyError, TypeError):
            said = f"cluster {self._name} answers {answer.status}"
        raise (NotFoundError if answer.status == 404 else UsageError)(said)
