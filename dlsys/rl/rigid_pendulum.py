"""A rigid rod on a hinge, integrated by Störmer-Verlet (Hairer, Lubich and Wanner, Acta Numerica 12, 2003).

The method is symplectic: without friction and torque the energy swings about its first value, undrifting.
"""

from __future__ import annotations

from math import cos, pi, sin
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

GRAVITY = 9.81  # m/s²
_STEP = 0.05  # seconds between two actions


class RigidPendulum(gymnasium.Env[NDArray[np.float32], NDArray[np.float32]]):
    """To be swung up and held by a motor in its hinge that is too weak to lift it at once.

    What is seen is the cosine and the sine of the angle from upright, and the speed in rad/s. An action in ±1
    is a share of the motor's torque. The reward is that of gymnasium's Pendulum-v1: -(angle² + 0.1 speed² +
    0.001 torque²). `info` tells the `energy` in J, 0 where it hangs at rest, and whether it is within 0.2 rad
    of `upright`.

    Args:
        length: of the rod, m; its mass lies evenly along it.
        mass: of the rod, kg.
        torque: the motor's, N m.
        friction: of the hinge, N m s/rad.
        substeps: of the integrator within the 0.05 s between two actions.
        start: the greatest angle from hanging at which an episode begins, rad.

    Raises:
        ValueError: a number is out of its range.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012

    def __init__(
        self,
        length: float = 1.0,
        mass: float = 1.0,
        torque: float = 2.0,
        friction: float = 0.0,
        substeps: int = 5,
        start: float = pi,
    ) -> None:
        for name, value, least in (
            ("length", length, 0),
            ("mass", mass, 0),
            ("torque", torque, 0),
            ("substeps", substeps, 0.5),
        ):
            if not value > least:
                raise ValueError(f"{name} must be above 0, got {value}")
        if friction < 0 or not 0 <= start <= pi:
            raise ValueError(
                f"friction must be 0 or more and start within 0 to π, got {friction} and {start}"
            )
        self._torque, self._friction, self._start = torque, friction, start
        self._inertia = mass * length**2 / 3  # of a rod about its end
        self._weight = mass * GRAVITY * length / 2
        self._substeps, self._step = substeps, _STEP / substeps
        # The hinge lets through all the energy that the motor can give in an episode: no bound is known.
        bound = np.array([1, 1, np.inf], np.float32)
        self.observation_space = spaces.Box(-bound, bound)
        self.action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self._angle = self._speed = 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        self._angle = pi + self._start * float(self.np_random.uniform(-1, 1))
        self._speed = 0.0
        return self._seen(), self._info()

    def step(
        self, action: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        torque = self._torque * float(np.clip(action[0], -1, 1))
        cost = _wrapped(self._angle) ** 2 + 0.1 * self._speed**2 + 0.001 * torque**2
        for _ in range(self._substeps):
            half = self._speed + self._step / 2 * self._acceleration(torque)
            self._angle += self._step * half
            self._speed = half
            self._speed = half + self._step / 2 * self._acceleration(torque)
        return self._seen(), -cost, False, False, self._info()

    def _acceleration(self, torque: float) -> float:
        return (self._weight * sin(self._angle) - self._friction * self._speed + torque) / self._inertia

    def _seen(self) -> NDArray[np.float32]:
        return np.array([cos(self._angle), sin(self._angle), self._speed], np.float32)

    def _info(self) -> dict[str, Any]:
        energy = self._inertia * self._speed**2 / 2 + self._weight * (1 + cos(self._angle))
        return {"energy": energy, "upright": float(abs(_wrapped(self._angle)) < 0.2)}


def _wrapped(angle: float) -> float:
    """The same angle within ±π."""
    return (angle + pi) % (2 * pi) - pi
