"""The level of a tank behind another one: coupled tanks as in K. H. Johansson, "The quadruple-tank process",
IEEE Transactions on Control Systems Technology 8, 2000, the lower one a cone. Its baseline is the PID
controller of K. J. Åström and T. Hägglund, "Advanced PID control", 2006: a filtered derivative of the level,
and an integral that stands still while the pump is at a bound.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dlsys.rl.simulators.simulator import Simulator

STEPS = 200  # of an episode
SECONDS = 4.0  # of a step
PARTS = 4  # of a step, each as Euler's method has it
DELAY = 4  # steps until the pump does what it was told
HOLD = 50  # steps between changes of the set point
HEIGHT = 1.0  # m, of both tanks
FLOW = 0.03  # m³/s, of the pump at its most
OUTLET = 0.02  # m³/s at a level of 1 m, of both tanks
AREA = 0.2  # m², of the upper tank
RADIUS = (0.05, 0.5)  # m, of the lower tank at its foot and its top
SET = (0.2, 0.9)  # m, between which set points lie
CLOGGED = 0.2  # the share by which the lower outlet is wider or narrower at most
NOISE = 0.005  # m, the deviation of measurements
MOVES = 0.1  # the cost of a whole stroke of the pump, in steps that are 10 cm off
_DECAY = 0.9  # of the mean error that is seen


class Gains(NamedTuple):
    """Of a PID controller, by which the pump's opening answers an error in m."""

    proportional: float
    integral: float  # for each s
    derivative: float  # s
    filter: float  # s, the time constant of the derivative's filter


# `python benchmarks/pid_gains.py` found them.
GAINS = Gains(0.5548, 0.0119, 3.6989, 0.7094)
# What the controller with these gains costs in an episode, in the mean; the same command says so.
COST = 118.9


class PID:
    """A controller.

    Args:
        gains: its gains.
        level: where it begins, in m.
        opening: of the pump there.
    """

    def __init__(self, gains: Gains, level: float, opening: float) -> None:
        self._gains, self._level, self._slope, self._integral = gains, level, 0.0, opening

    def act(self, level: float, target: float) -> float:
        """The pump's opening, 0 to 1, for a measured level and its set point."""
        gains, error = self._gains, target - level
        keep = gains.filter / (gains.filter + SECONDS)
        self._slope = keep * self._slope + (1 - keep) * (level - self._level) / SECONDS
        self._level = level
        wanted = self._integral + gains.proportional * error - gains.derivative * self._slope
        opening = min(max(wanted, 0.0), 1.0)
        grown = gains.integral * SECONDS * error
        if opening == wanted or (wanted > 1) != (grown > 0):
            self._integral += grown
        return opening


class Plant:
    """Both tanks and the pump.

    Args:
        level: of the lower tank, in m, where it stands still.
    """

    def __init__(self, level: float) -> None:
        self.upper = self.lower = level
        self.told = [steady(level)] * (DELAY + 1)

    def step(self, opening: float, outlet: float) -> float:
        """Goes on for a step.

        Args:
            opening: of the pump, 0 to 1; it is pumped DELAY steps later.
            outlet: how wide the lower outlet is, 1 as it was built.

        Returns:
            The lower tank's level, in m.
        """
        self.told = [*self.told[1:], opening]
        pumped, seconds = self.told[0] * FLOW, SECONDS / PARTS
        for _ in range(PARTS):
            between = OUTLET * math.sqrt(self.upper)
            out = outlet * OUTLET * math.sqrt(self.lower)
            area = math.pi * (RADIUS[0] + (RADIUS[1] - RADIUS[0]) * self.lower / HEIGHT) ** 2
            self.upper = min(max(self.upper + seconds * (pumped - between) / AREA, 0.0), HEIGHT)
            self.lower = min(max(self.lower + seconds * (between - out) / area, 0.0), HEIGHT)
        return self.lower


def steady(level: float) -> float:
    """The opening of the pump that holds a level."""
    return OUTLET * math.sqrt(level) / FLOW


class TwoTanks(Simulator):
    """A lower tank's level is to follow a set point, by a pump that fills the upper one. The action is the
    pump's opening. The lower outlet becomes wider or narrower within an episode, once, which is not seen.

    The reward is minus how far the true level is off, in units of 10 cm, and minus MOVES for a whole stroke
    of the pump. What is seen is the set point, how far both measured levels are below it (in m), the last
    DELAY + 1 openings, and the mean error of the last steps.

    The last `info` has `cost`, that of the PID controller on the same random numbers, `pid_cost`, and
    `over_pid`: by how much the one is below the other, as a share of the controller's *expected* cost. So its
    mean is a ratio of mean costs, in which hard episodes count by what they cost.

    Pictures have the level, the set point, and the pump's opening.

    Args:
        render_mode: `rgb_array` draws.
    """

    def __init__(self, render_mode: str | None = None) -> None:
        super().__init__(STEPS, render_mode)
        self.observation_space = spaces.Box(-1.5, 1.5, (DELAY + 5,), np.float32)
        self.action_space = spaces.Box(0.0, 1.0, (1,), np.float32)
        # Of each step: the set point, how wide the outlet is, and the errors of both measurements.
        self._course: list[tuple[float, float, float, float]] = []
        self._plant = Plant(SET[0])
        self._step, self._mean, self._cost = 0, 0.0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        random = self.np_random
        targets = random.uniform(*SET, size=STEPS // HOLD + 1)
        changes, outlet = int(random.integers(STEPS)), float(random.uniform(1 - CLOGGED, 1 + CLOGGED))
        noise = NOISE * random.standard_normal((STEPS + 1, 2))
        self._course = [
            (float(targets[step // HOLD]), outlet if step >= changes else 1.0, above, below)
            for step, (above, below) in enumerate(noise.tolist())
        ]
        self._plant = self._begun()
        self._step, self._mean, self._cost = 0, 0.0, 0.0
        return self._seen(), {}

    def _begun(self) -> Plant:
        """As each episode begins: at rest at a level that is not the set point."""
        return Plant(self._course[-1][0])

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        opening = min(max(float(action[0]), 0.0), 1.0)
        cost = self._run(self._plant, self._step, opening)
        self._cost += cost
        self._step += 1
        over = self._step == STEPS
        info = self._ended() if over else {}
        return self._seen(), -cost, False, over, info

    def _run(self, plant: Plant, step: int, opening: float) -> float:
        """What a step costs."""
        target, outlet, _, _ = self._course[step]
        stroke = abs(opening - plant.told[-1])
        return 10 * abs(plant.step(opening, outlet) - target) + MOVES * stroke

    def controlled(self, gains: Gains) -> float:
        """What a PID controller costs in this episode."""
        plant, cost = self._begun(), 0.0
        controller = PID(gains, plant.lower, plant.told[-1])
        for step in range(STEPS):
            target, _, _, noise = self._course[step]
            cost += self._run(plant, step, controller.act(plant.lower + noise, target))
        return cost

    def _ended(self) -> dict[str, Any]:
        pid = self.controlled(GAINS)
        return {"cost": self._cost, "pid_cost": pid, "over_pid": (pid - self._cost) / COST}

    def _seen(self) -> NDArray[np.float32]:
        # The set point of the step that is to come; after the last one, that of the last.
        target = self._course[min(self._step, STEPS - 1)][0]
        _, _, above, below = self._course[self._step]
        plant = self._plant
        level = plant.lower + below
        self._mean = _DECAY * self._mean + (1 - _DECAY) * (target - level)
        self._mark(plant.lower / HEIGHT, target / HEIGHT, plant.told[-1])
        seen = [target, target - level, target - plant.upper - above, *plant.told, self._mean]
        return np.array(seen, np.float32)
