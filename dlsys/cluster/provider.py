"""What every provider of machines can do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from dlsys.cluster.places import Endpoint
from dlsys.spec import yaml
from dlsys.spec.cluster.providers import Cluster

# Where the queue of jobs listens on a head that is a machine of its own.
DESK_PORT = 8266


@dataclass(frozen=True)
class Finding:
    """One thing that a doctor looked at.

    Attributes:
        good: whether it is as it should be.
        what: a sentence about what was found.
        mend: what to do about it; empty where nothing needs to be done.
        serious: whether what is not good keeps anything from working; else it is a warning.
    """

    good: bool
    what: str
    mend: str = ""
    serious: bool = True

    @property
    def state(self) -> str:
        """`ok`, `warning` or `wrong`."""
        return "ok" if self.good else "wrong" if self.serious else "warning"


class Provider(Protocol):
    """One cluster at its provider. `up` and `down` may be called again at any time."""

    def render(self) -> dict[str, str]:
        """What `up` hands to the provider, by file name; touches nothing."""

    def up(self, say: Callable[[str], None]) -> None:
        """Brings the cluster to what its file says; returns when its queue takes jobs.

        Raises:
            DlsysError: the provider refused, with its own words.
        """

    def down(self, say: Callable[[str], None]) -> None:
        """Ends the cluster and removes all that `up` made, but not `storage`."""

    def alive(self) -> bool:
        """Whether the cluster stands, as far as it can be told from here."""

    def connect(self) -> AbstractContextManager[Endpoint]:
        """A way to the cluster's queue, for as long as the context lasts.

        Raises:
            RunError: the cluster is not up, or cannot be reached.
        """

    def doctor(self) -> Iterator[Finding]:
        """Looks at what could keep `up` or jobs from working."""


def cluster_text(cluster: Cluster) -> str:
    """A cluster as a file that `load_cluster` reads, all defaults and overrides in it."""
    return yaml.dump(cluster.model_dump(mode="json", exclude_none=True))
