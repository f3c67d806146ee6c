"""The gains of the controller that `dlsys/TwoTanks-v0` holds agents against: `python
benchmarks/pid_gains.py`.

Nelder and Mead's search, from several starts, for the gains with the least mean cost of 100 episodes, whose
seeds no agent meets; then that mean of 20,000 others, which `dlsys/rl/simulators/tanks.py` keeps besides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from dlsys.rl.simulators.tanks import Gains, TwoTanks

_STARTS = 4
_EPISODES, _MEASURED = 100, 20_000
_FIRST_SEED = 2**31  # those of evaluations are below


def episodes(count: int, first: int) -> list[TwoTanks]:
    made = [TwoTanks() for _ in range(count)]
    for seed, env in enumerate(made, first):
        env.reset(seed=seed)
    return made


def main() -> None:
    tuning = episodes(_EPISODES, _FIRST_SEED)

    def cost(logs: NDArray[np.float64]) -> float:
        gains = Gains(*np.exp(logs))
        return float(np.mean([env.controlled(gains) for env in tuning]))

    random, found = np.random.default_rng(0), []
    for _ in range(_STARTS):
        begin = np.log([0.5, 0.01, 5.0, 1.0]) + random.normal(0, 0.7, 4)
        found.append(minimize(cost, begin, method="Nelder-Mead", options={"xatol": 0.02, "fatol": 0.02}))
        print(f"{found[-1].fun:.3f}: {np.exp(found[-1].x).round(4).tolist()}", flush=True)
    gains = Gains(*np.exp(min(found, key=lambda each: each.fun).x).round(4).tolist())
    costs = np.array([env.controlled(gains) for env in episodes(_MEASURED, _FIRST_SEED + _EPISODES)])
    print(f"{gains}: {costs.mean():.3f} ± {costs.std() / len(costs) ** 0.5:.3f}")


if __name__ == "__main__":
    main()
