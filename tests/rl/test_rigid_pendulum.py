"""The rigid pendulum: its energy, its period by Legendre's elliptic integral, and what its torque does."""

from __future__ import annotations

from math import exp, pi, sin, sqrt

import gymnasium
import numpy as np
import pytest
from scipy.special import ellipk

import dlsys.spec.rl.environments  # noqa: F401  # registers it
from dlsys.rl.rigid_pendulum import GRAVITY, RigidPendulum

STILL = np.zeros(1, np.float32)


def released(angle: float, **options: float) -> RigidPendulum:
    """At rest at an angle from hanging."""
    env = RigidPendulum(**options)
    env.reset(seed=0)
    env._angle = pi + angle
    return env


@pytest.mark.parametrize("angle", [0.3, 1.5, 3.0])
def test_its_energy_does_not_drift_in_ten_seconds(angle: float) -> None:
    env = released(angle)
    energies = [env._info()["energy"]]
    for _ in range(200):
        energies.append(env.step(STILL)[4]["energy"])
    assert max(abs(one / energies[0] - 1) for one in energies) < 0.01
    late = np.mean(energies[101:]) / np.mean(energies[:101]) - 1
    assert abs(late) < 1e-3, "it swings about its first value and does not drift"


@pytest.mark.parametrize(("angle", "length"), [(0.1, 1.0), (1.5, 1.0), (2.5, 0.4)])
def test_its_period_is_that_of_the_elliptic_integral(angle: float, length: float) -> None:
    env = released(angle, length=length, substeps=50)
    signs = []
    for _ in range(400):
        env.step(STILL)
        signs.append((env._speed, env._angle - pi))
    speeds, angles = np.array(signs).T
    # Between two crossings of the lowest point it swings half of a period.
    (before,) = np.nonzero(np.diff(np.sign(angles)))
    times = 0.05 * (before + 1 + angles[before] / (angles[before] - angles[before + 1]))
    period = 2 * float(np.mean(np.diff(times)))
    # Of a rod, inertia / (mass g length / 2) is 2 length / 3 g.
    expected = 4 * sqrt(2 * length / (3 * GRAVITY)) * float(ellipk(sin(angle / 2) ** 2))
    assert period == pytest.approx(expected, rel=2e-3)
    assert np.abs(speeds).max() > 0


def test_a_torque_adds_its_work_and_friction_takes_energy() -> None:
    env = released(0.0, torque=3.0)
    for _ in range(10):
        _, _, _, _, info = env.step(np.array([0.5], np.float32))
    assert info["energy"] == pytest.approx(1.5 * (env._angle - pi), rel=1e-3)
    env = released(0.1, friction=0.02)
    before = env._info()["energy"]
    for _ in range(100):
        _, _, _, _, info = env.step(STILL)
    # Small swings lose the share friction / inertia of their energy in a second.
    assert info["energy"] / before == pytest.approx(exp(-0.02 / (1 / 3) * 5), rel=0.02)


def test_what_is_seen_and_paid_is_what_it_says() -> None:
    env = released(pi - 0.1)
    env._speed = 2.0
    seen, reward, over, cut, info = env.step(np.array([1.0], np.float32))
    assert reward == pytest.approx(-(0.01 + 0.1 * 4 + 0.001 * 4))
    assert (over, cut) == (False, False)
    np.testing.assert_allclose(seen, [np.cos(env._angle), np.sin(env._angle), env._speed], rtol=1e-6)
    assert info["upright"] == 1
    assert released(pi - 0.3).step(STILL)[4]["upright"] == 0
    with pytest.raises(ValueError, match="length must be above 0, got -1"):
        RigidPendulum(length=-1)
    made = gymnasium.make("dlsys/RigidPendulum-v0")
    assert made.spec is not None
    assert made.spec.max_episode_steps == 200
