"""From a sweep's `scheduler:` to the policy that deals out its trials."""

from __future__ import annotations

from dlsys.plan.asha import AshaPolicy
from dlsys.plan.fifo import FifoPolicy
from dlsys.plan.halving import HyperbandPolicy, SuccessiveHalvingPolicy, rungs_between
from dlsys.plan.median import MedianPolicy
from dlsys.plan.policy import Policy
from dlsys.plan.population import PBTPolicy
from dlsys.spec.sweep.sweep import PBT, Fifo, Halving, Median, Sweep

_HALVING: dict[str, type[SuccessiveHalvingPolicy] | type[HyperbandPolicy] | type[AshaPolicy]] = {
    "successive-halving": SuccessiveHalvingPolicy,
    "hyperband": HyperbandPolicy,
    "asha": AshaPolicy,
}


def policy_of(sweep: Sweep, epochs: int | None, every: int = 1) -> Policy:
    """A sweep's policy, before its first trial.

    Args:
        sweep: checked, so that its mode is known.
        epochs: the job's `stop.epochs`; None when it stops otherwise.
        every: epochs between two evaluations of the job, where the scheduler does not say.
    """
    assert sweep.mode is not None, "a checked sweep has a mode"
    trials, mode = sweep.trials, sweep.mode
    match sweep.scheduler:
        case Fifo():
            return FifoPolicy(trials, mode, epochs)
        case Halving(name=name, grace=grace, max=most, reduction=reduction):
            rungs = rungs_between(grace.count, most.count, reduction)
            return _HALVING[name](trials, mode, rungs, reduction)
        case Median(grace=grace, min_samples=min_samples):
            return MedianPolicy(trials, mode, epochs, every, grace.count, min_samples)
        case PBT(every=between, quantile=quantile):
            return PBTPolicy(trials, mode, epochs, between.count, quantile, sweep.seed)
