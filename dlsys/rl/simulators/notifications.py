"""Which notifications a person is sent: J. Gauci et al., "Horizon: Facebook's open source applied
reinforcement learning platform", 2018 (arXiv:1811.00260): candidates are sent or dropped; activity
is rewarded, and each one sent costs a little.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from dlsys.rl.simulators.simulator import Simulator

HOURS = 4  # slots of a day: morning, noon, evening, night
RELEVANCE = (-1.0, 0.0, 1.0)  # of a candidate, in log-odds of a click; each is as likely
TIRED = 8  # the highest fatigue
COST = 0.05  # of a notification that is sent; a click is worth 1
VISIT = 0.2  # worth of a visit without a notification


class Kind(NamedTuple):
    """A type of users."""

    share: float
    """Of all users."""
    activity: float
    """The mean of what is known of a user's earlier activity; its deviation is 1."""
    clicks: tuple[float, float, float, float]
    """Log-odds of a click in each slot of a day, when not tired."""
    tires: float
    """What each unit of fatigue takes from them."""
    leaves: float
    """The chance to leave for good after a slot, at the highest fatigue; it grows with its square."""
    visits: float
    """The chance of a visit without a notification in a slot."""


KINDS = (
    Kind(0.3, 1.0, (0.0, 0.5, 1.0, 0.0), 0.1, 0.01, 0.5),
    Kind(0.4, 0.0, (-1.5, 0.5, 0.5, -1.5), 0.2, 0.02, 0.3),
    Kind(0.3, -1.0, (-2.0, -2.0, 0.0, -2.0), 0.3, 0.05, 0.2),
)


def _chances() -> NDArray[np.float64]:
    """Of a click, by kind, slot, relevance and fatigue."""
    clicks = np.array([kind.clicks for kind in KINDS])[:, :, None, None]
    tires = np.array([kind.tires for kind in KINDS])[:, None, None, None]
    odds = clicks + np.array(RELEVANCE)[:, None] - tires * np.arange(TIRED + 1)
    found: NDArray[np.float64] = 1 / (1 + np.exp(-odds))
    return found


CLICK = _chances()
ALWAYS = np.ones_like(CLICK)
# Sends where the chance of a click is worth more than the notification costs; it knows that chance exactly,
# and nothing of what comes of it.
MYOPIC = (CLICK > COST).astype(np.float64)
_LEAVE = np.array([kind.leaves for kind in KINDS])[:, None] * (np.arange(TIRED + 1) / TIRED) ** 2
_CLICK, _SENDS, _LEAVES = CLICK.tolist(), MYOPIC.tolist(), _LEAVE.tolist()


def tired(fatigue: int, sent: bool) -> int:
    """The fatigue after a slot."""
    return min(fatigue + 2, TIRED) if sent else max(fatigue - 1, 0)


def value(sends: NDArray[np.float64] | None, days: int) -> float:
    """The expected long-term value of a policy, exactly, by going back from the last slot.

    Args:
        sends: its chance to send [kinds, slots, relevances, fatigues], or None of the best one that knows a
            user's kind, which nothing can be above.
        days: how long.
    """
    levels = np.arange(TIRED + 1)
    rested, wearied = np.maximum(levels - 1, 0), np.minimum(levels + 2, TIRED)
    visits = VISIT * np.array([kind.visits for kind in KINDS])[:, None]
    later = np.zeros((len(KINDS), TIRED + 1))
    for slot in reversed(range(days * HOURS)):
        hour, stays = slot % HOURS, (1 - _LEAVE) * later
        send = CLICK[:, hour] - COST + stays[:, None, wearied]
        drop = np.broadcast_to(stays[:, None, rested], send.shape)
        if sends is None:
            chosen = np.maximum(send, drop)
        else:
            chosen = sends[:, hour] * send + (1 - sends[:, hour]) * drop
        later = visits + chosen.mean(1)
    return float(np.dot([kind.share for kind in KINDS], later[:, 0]))


@cache
def _expected(days: int) -> tuple[float, float]:
    return value(ALWAYS, days), value(MYOPIC, days)


class Notifications(Simulator):
    """One user an episode, of a kind that is not seen. In each slot there is a candidate: action 1 sends it,
    0 drops it.

    The reward is 1 for a click and VISIT for a visit, less COST for what is sent; its sum is the user's
    long-term value, until they leave or the last day is over. What is seen is the time that is left, the slot
    of the day (4 switches), fatigue, the candidate's relevance, the user's earlier activity, and of this
    episode how many of those sent were clicked (as a share, with 1 of 2 before the first), and how many slots
    had visits.

    The last `info` has `value`, those of the policies ALWAYS and MYOPIC on the same random numbers, and
    `over_always` and `over_myopic`: by how much it is above theirs, as a share of their *expected* value. So
    their means are ratios of mean values, in which each user counts by what they are worth; a mean of ratios
    would count most the users who leave at once.

    Pictures have the fatigue, and the value so far as a share of a click in each slot.

    Args:
        days: after which the episode ends.
        render_mode: `rgb_array` draws.

    Raises:
        ValueError: there are none.
    """

    def __init__(self, days: int = 14, render_mode: str | None = None) -> None:
        if days < 1:
            raise ValueError(f"days must be at least 1, got {days}")
        super().__init__(days * HOURS, render_mode)
        self.days = days
        low = [0.0] * 6 + [RELEVANCE[0], -np.inf, 0.0, 0.0]
        high = [1.0] * 6 + [RELEVANCE[-1], np.inf, 1.0, 1.0]
        self.observation_space = spaces.Box(np.array(low, np.float32), np.array(high, np.float32))
        self.action_space = spaces.Discrete(2)
        self._kind, self._activity = 0, 0.0
        # Of each slot: the candidate's relevance, and what decides on click, visit and leaving.
        self._candidates: list[int] = []
        self._draws: list[list[float]] = []
        self._slot, self._fatigue, self._value = 0, 0, 0.0
        self._sent = self._clicked = self._visited = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        random, slots = self.np_random, self.days * HOURS
        self._kind = int(random.choice(len(KINDS), p=[kind.share for kind in KINDS]))
        self._activity = KINDS[self._kind].activity + float(random.standard_normal())
        self._candidates = random.integers(len(RELEVANCE), size=slots).tolist()
        self._draws = random.random((slots, 3)).tolist()
        self._slot, self._fatigue, self._value = 0, 0, 0.0
        self._sent = self._clicked = self._visited = 0
        return self._seen(), {}

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        sent = bool(action)
        clicked, visited, self._fatigue, left = self._lived(self._slot, self._fatigue, sent)
        reward = clicked + VISIT * visited - COST * sent
        self._sent += sent
        self._clicked += clicked
        self._visited += visited
        self._value += reward
        self._slot += 1
        over = left or self._slot == self.days * HOURS
        return self._seen(), reward, over, False, self._ended() if over else {}

    def _lived(self, slot: int, fatigue: int, sent: bool) -> tuple[bool, bool, int, bool]:
        """Whether the user clicked and visited in a slot, their fatigue then, and whether they left."""
        for_click, for_visit, for_leaving = self._draws[slot]
        chance = _CLICK[self._kind][slot % HOURS][self._candidates[slot]][fatigue]
        after = tired(fatigue, sent)
        return (
            sent and for_click < chance,
            for_visit < KINDS[self._kind].visits,
            after,
            for_leaving < _LEAVES[self._kind][after],
        )

    def _ended(self) -> dict[str, Any]:
        always, myopic = self._played(None), self._played(_SENDS[self._kind])
        expected = _expected(self.days)
        return {
            "value": self._value,
            "always": always,
            "myopic": myopic,
            "over_always": (self._value - always) / expected[0],
            "over_myopic": (self._value - myopic) / expected[1],
        }

    def _played(self, sends: list[list[list[float]]] | None) -> float:
        """The value of this user under a policy, by slot, relevance and fatigue; None sends always."""
        total, fatigue, left, slot = 0.0, 0, False, 0
        while not left and slot < self.days * HOURS:
            sent = sends is None or sends[slot % HOURS][self._candidates[slot]][fatigue] > 0
            clicked, visited, fatigue, left = self._lived(slot, fatigue, sent)
            total += clicked + VISIT * visited - COST * sent
            slot += 1
        return total

    def _seen(self) -> NDArray[np.float32]:
        slots = self.days * HOURS
        seen = np.zeros(10, np.float32)
        slot = min(self._slot, slots - 1)
        seen[0] = 1 - self._slot / slots
        seen[1 + slot % HOURS] = 1
        seen[5] = self._fatigue / TIRED
        seen[6] = RELEVANCE[self._candidates[slot]]
        seen[7] = self._activity
        seen[8] = (self._clicked + 1) / (self._sent + 2)
        seen[9] = self._visited / max(self._slot, 1)
        self._mark(float(seen[5]), self._value / slots)
        return seen
