"""A way to a cluster's queue, wherever the cluster is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dlsys.cluster.places import ClusterPaths, Endpoint


@contextmanager
def reach(paths: ClusterPaths) -> Iterator[Endpoint]:
    """A way to a cluster's queue, for as long as the context lasts.

    Raises:
        RunError: the cluster is not up, or cannot be reached.
    """
    state = paths.read_state()
    if state.get("provider") == "local":
        yield Endpoint(state["desk"], paths.read_token())
        return
    # With the typed files, which a client of a local cluster need not wait for.
    from dlsys.cluster.providers import provider_at

    with provider_at(paths).connect() as endpoint:
        yield endpoint
