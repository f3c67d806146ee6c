"""The time that random search, synchronous halving and ASHA take to a target, simulated.

    python benchmarks/asha_simulated.py [--quick] [--seeds 21]

It is the setting of Li et al. 2018 (arXiv:1810.05934): trials train up to R = 256 epochs, with rungs at
1, 4, 16, 64 and 256, on 25 and on 500 workers. Legs straggle (their epochs take 1 + |z| times as long,
z normal with standard deviation 1), and 2 of 1,000 epochs are lost. The target is what one in 1,000
settings reaches. Curves are those of dlsys.plan.curves.Bank in a space of six numbers. Halving is
synchronous in two ways: brackets of 256 trials, of which a new one starts whenever workers would idle,
as in the paper; and one bracket of all trials, as a sweep file's `successive-halving` makes it.

Times are simulated, not measured: the same call prints the same figures everywhere.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable
from statistics import median

from dlsys.plan.asha import AshaPolicy
from dlsys.plan.curves import Bank
from dlsys.plan.fifo import FifoPolicy
from dlsys.plan.halving import SuccessiveHalvingPolicy, rungs_between
from dlsys.plan.policy import Policy
from dlsys.plan.simulate import simulate
from dlsys.spec.sweep import space

EPOCHS, REDUCTION, BRACKET = 256, 4, 256
RUNGS = rungs_between(1, EPOCHS, REDUCTION)
SPACE, _ = space.parse({f"x{i}": {"uniform": [0, 1]} for i in range(6)})
ONE_IN = 1000
# More than any way needs until it reaches the target, of those that reach it in good time.
TRIALS = {25: 2048, 500: 8192}


def brackets(trials: int) -> Policy:
    policy = SuccessiveHalvingPolicy(BRACKET, "min", RUNGS, REDUCTION)
    while policy.trials < trials:
        policy.extend(policy.trials + BRACKET)
    return policy


WAYS: dict[str, Callable[[int], Policy]] = {
    "random": lambda trials: FifoPolicy(trials, "min", EPOCHS),
    "halving, one bracket": lambda trials: SuccessiveHalvingPolicy(trials, "min", RUNGS, REDUCTION),
    "halving, brackets of 256": brackets,
    "asha": lambda trials: AshaPolicy(trials, "min", RUNGS, REDUCTION),
}


def target_of(bank: Bank, seed: int) -> float:
    """What one in 1,000 settings reaches, of settings that no sweep tries."""
    first = random.Random(seed).randrange(10**6, 10**7)
    values = sorted(bank.value(trial, EPOCHS) for trial in range(first, first + 4 * ONE_IN))
    return values[4]


def times_to_target(workers: int, seeds: int) -> dict[str, float]:
    """Medians over seeds, in units of what R epochs take at the usual speed; inf is never."""
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for seed in range(seeds):
        bank = Bank(SPACE, "min", seed)
        target = target_of(bank, seed)
        for way, make in WAYS.items():
            policy = make(TRIALS[workers])
            line = simulate(policy, bank, workers, EPOCHS, straggling=1, dropping=0.002, seed=seed)
            reached = line.reaches(target, bank)
            times[way].append(math.inf if reached is None else reached / EPOCHS)
    return {way: median(found) for way, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=21)
    parser.add_argument("--quick", action="store_true", help="five seeds")
    arguments = parser.parse_args()
    seeds = 5 if arguments.quick else arguments.seeds
    print(f"Median over {seeds} seeds of the time to the target, in time(R), and as a multiple of ASHA's.\n")
    print("| workers | " + " | ".join(WAYS) + " |")
    print("|---" * (len(WAYS) + 1) + "|")
    for workers in TRIALS:
        times = times_to_target(workers, seeds)
        cells = [f"{time:.2f} ({time / times['asha']:.2f})" for time in times.values()]
        print(f"| {workers} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
