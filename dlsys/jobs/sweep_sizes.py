"""How large a sweep's trials are."""

from __future__ import annotations

from dlsys.jobs.launch.resources import check_machine
from dlsys.spec.load import LoadedSweep
from dlsys.spec.rl.job import RLResources
from dlsys.spec.sweep import space
from dlsys.spec.train.job import Resources


def check_here(loaded: LoadedSweep) -> None:
    """Raises ResourceError when a trial may need more than this machine has."""
    for resources in sizes(loaded):
        check_machine(resources)


def sizes(loaded: LoadedSweep) -> list[Resources | RLResources]:
    """Every size that a trial may have."""
    tree = space.parse(loaded.sweep.space)[0]
    sized = {key: part for key, part in tree.items() if key.partition(".")[0] == "resources"}
    usual = space.sample(tree, loaded.sweep.seed, 0)
    found = [loaded.build(usual).resources]
    for _, values in space.edges(sized, {key: usual[key] for key in sized}):
        found.append(loaded.build({**usual, **values}).resources)
    return found


def total(size: Resources | RLResources, what: str) -> float:
    """How many `CPU` or `GPU` a trial of this size takes."""
    return sum(bundle.get(what, 0.0) for bundle in size.bundles)
