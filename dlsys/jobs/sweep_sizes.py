"""How large a sweep's trials are."""

from __future__ import annotations

from dlsys.jobs.launch.resources import check_machine
from dlsys.spec import space
from dlsys.spec.job import Resources
from dlsys.spec.load import LoadedSweep


def check_here(loaded: LoadedSweep) -> None:
    """Raises ResourceError when a trial may need more than this machine has."""
    for resources in sizes(loaded):
        check_machine(resources)


def sizes(loaded: LoadedSweep) -> list[Resources]:
    """Every size that a trial may have."""
    tree = space.parse(loaded.sweep.space)[0]
    sized = {key: part for key, part in tree.items() if key.partition(".")[0] == "resources"}
    usual = space.sample(tree, loaded.sweep.seed, 0)
    found = [loaded.build(usual).resources]
    for _, values in space.edges(sized, {key: usual[key] for key in sized}):
        found.append(loaded.build({**usual, **values}).resources)
    return found
