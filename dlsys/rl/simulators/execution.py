"""A large order, sold little by little: R. Almgren and N. Chriss, "Optimal execution of portfolio
transactions", Journal of Risk 3, 2000. The book has the shape of a block, after A. Obizhaeva and J. Wang,
"Optimal trading strategy and supply/demand dynamics", Journal of Financial Markets 16, 2013.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dlsys.rl.simulators.simulator import Simulator

# Sizes of orders that may be sent, in slices: what TWAP sells in a step.
SIZES = (0.0, 0.5, 1.0, 2.0, 4.0)


@dataclass(frozen=True)
class Market:
    """What is sold, and into what. Prices are in ticks, time is in steps.

    Attributes:
        shares: to be sold.
        steps: within which they are sold.
        spread: its mean.
        spread_deviation: of its logarithm.
        depth: the mean number of shares bid for at each tick below the best bid.
        depth_deviation: of its logarithm.
        volatility: the deviation of a step's change of the mid price.
        drift: what one deviation of the order-flow imbalance adds to the mid price in a step.
        permanent: how much each share that is sold to bids lowers the mid price for good.
        buyers: the median number of shares that buyers take from the best ask in a step.
        rush: what a deviation of the imbalance, or of the price's change, adds to the logarithm of that
            number: an order that waits is taken most where it should have waited on.
        memory: the autocorrelations of imbalance, spread and depth from step to step.
    """

    shares: float = 20_000.0
    steps: int = 20
    spread: float = 2.0
    spread_deviation: float = 0.4
    depth: float = 500.0
    depth_deviation: float = 0.5
    volatility: float = 1.0
    drift: float = 0.4
    permanent: float = 1e-4
    buyers: float = 250.0
    rush: float = 0.4
    memory: tuple[float, float, float] = (0.7, 0.6, 0.8)

    def __post_init__(self) -> None:
        for name in ("shares", "steps", "spread", "depth"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        for field in fields(self):
            if field.name != "memory" and getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must be at least 0, got {getattr(self, field.name)}")
        if len(self.memory) != 3 or not all(0 <= value < 1 for value in self.memory):
            raise ValueError(f"memory must be 3 numbers from 0 to below 1, got {self.memory}")

    @property
    def slice(self) -> float:
        """What TWAP sells in a step."""
        return self.shares / self.steps

    @property
    def twap(self) -> float:
        """The expected cost of TWAP, in ticks a share: half a spread, the depth of the book that a slice eats
        into, and what all earlier slices have lowered the price by."""
        eaten = self.slice / 2 / self.depth * math.exp(self.depth_deviation**2)
        return self.spread / 2 + eaten + self.permanent * (self.shares - self.slice) / 2


class Execution(Simulator):
    """One order an episode. An action is the sizes of an order to the bids, which is filled at once, and of
    one that waits at the best ask until the step ends, both by their index in `SIZES`. What is left at the
    last step goes to the bids, whatever the action says.

    The reward is what a step adds to the cash and to the shares at their mid price, in ticks a share of the
    whole order; its sum is the negative cost, Perold's implementation shortfall. What is seen is the time
    that is left, the shares that are left, the imbalance (in deviations), and spread and depth (the
    logarithms of their ratios to the means).

    The last `info` has `cost`, TWAP's cost on the same random numbers, `twap_cost`, and `saving`: by how much
    the one is below the other, as a share of TWAP's *expected* cost. An episode's own cost would be a bad
    divisor: it is as often near 0 or below as prices rise. So the mean of `saving` is the ratio of mean
    costs, not a mean of ratios.

    Pictures have the shares that are left, and TWAP's.

    Args:
        render_mode: `rgb_array` draws.
        options: of `Market`.

    Raises:
        TypeError: there is no such option.
        ValueError: one of them is out of its bounds.
    """

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self.market = Market(**options)
        super().__init__(self.market.steps, render_mode)
        self.observation_space = spaces.Box(-np.inf, np.inf, (5,), np.float32)
        self.action_space = spaces.MultiDiscrete([len(SIZES)] * 2)
        self._paths: list[tuple[float, float, float, float]] = []
        self._step, self._left, self._moved, self._gained = 0, 0.0, 0.0, 0.0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        market = self.market
        imbalance, spread, depth = (self._path(memory) for memory in market.memory)
        shocks = self.np_random.standard_normal(market.steps)
        # The imbalance; logarithms of spread and depth in proportion to their means; shocks of the price.
        self._paths = list(
            zip(
                imbalance.tolist(),
                (market.spread_deviation * spread - market.spread_deviation**2 / 2).tolist(),
                (market.depth_deviation * depth - market.depth_deviation**2 / 2).tolist(),
                shocks.tolist(),
                strict=True,
            )
        )
        self._step, self._left, self._gained = 0, market.shares, 0.0
        return self._seen(), {}

    def _path(self, memory: float) -> NDArray[np.float64]:
        """A stationary autoregression with deviation 1, [steps]."""
        path = self.np_random.standard_normal(self.market.steps)
        fresh = math.sqrt(1 - memory**2)
        for step in range(1, len(path)):
            path[step] = memory * path[step - 1] + fresh * path[step]
        return path

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        sizes = [SIZES[int(index)] * self.market.slice for index in action]
        self._left, gain = self._sold(self._step, self._left, *sizes)
        self._step += 1
        self._gained += gain
        # Less than a thousandth of a share is a rounding error.
        over = self._step == self.market.steps or self._left < 1e-3
        info = self._ended() if over else {}
        return self._seen(), gain, over, False, info

    def _sold(self, step: int, left: float, at_bid: float, at_ask: float) -> tuple[float, float]:
        """Sells in one step.

        Args:
            step: which one.
            left: shares before it.
            at_bid: shares sent to the bids.
            at_ask: shares that wait at the best ask.

        Returns:
            Shares that are left, and the reward.
        """
        market = self.market
        imbalance, spread, depth, shock = self._paths[step]
        half = market.spread * math.exp(spread) / 2
        now = left if step == market.steps - 1 else min(at_bid, left)
        taken = min(at_ask, left - now, market.buyers * math.exp(market.rush * (imbalance + shock)))
        moved = market.drift * imbalance + market.volatility * shock - market.permanent * now
        gain = taken * half - now * (half + now / 2 / (market.depth * math.exp(depth)))
        left -= now + taken
        return left, (gain + left * moved) / market.shares

    def _ended(self) -> dict[str, Any]:
        market, left, gained = self.market, self.market.shares, 0.0
        for step in range(market.steps):
            left, gain = self._sold(step, left, market.slice, 0.0)
            gained += gain
        return {
            "cost": -self._gained,
            "twap_cost": -gained,
            "saving": (self._gained - gained) / market.twap,
        }

    def _seen(self) -> NDArray[np.float32]:
        market = self.market
        left = 1 - self._step / market.steps
        imbalance, spread, depth, _ = self._paths[min(self._step, market.steps - 1)]
        self._mark(self._left / market.shares, left)
        return np.array([left, self._left / market.shares, imbalance, spread, depth], np.float32)
