"""A simulator that is a program of its own, as one of gymnasium's environments."""

from __future__ import annotations

import weakref
from typing import Any

import gymnasium

from dlsys.errors import UsageError
from dlsys.rl.external.connection import connect
from dlsys.rl.external.values import json_of, legal, space_of, value_of
from dlsys.spec.rl.external import EXTERNAL, External, wrong_options
from dlsys.spec.rl.spaces import MASK


class ExternalEnv(gymnasium.Env[Any, Any]):
    """Asks a simulator for each reset and each step.

    Args:
        render_mode: must be None.
        options: as `dlsys.spec.rl.external.External` has them.

    Raises:
        UsageError: the options are wrong.
        WorkloadError: the simulator does not answer as `docs/external-simulators.md` says; it names the
            simulator's address. So do `reset` and `step`.
    """

    # gymnasium warns of other modes before it asks for one: that it draws nothing is said below.
    metadata: dict[str, Any] = {"render_modes": ["rgb_array", "human"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        if render_mode is not None:
            raise UsageError(f"{EXTERNAL} draws nothing: look at the simulator itself")
        for path, text in wrong_options(options):
            raise UsageError(".".join(map(str, ("environment", "options", *path))) + f": {text}")
        told = External.model_validate(options)
        self._timeout = told.timeout
        self._connection, answer = connect(told)
        # Whoever forgets to close it leaves no program behind.
        self._end = weakref.finalize(self, self._connection.close)
        try:
            self.observation_space = space_of(answer.get("observation_space"), "observation_space")
            self.action_space = space_of(answer.get("action_space"), "action_space")
        except ValueError as error:
            self._end()
            raise self._connection.failure(f"told of spaces that cannot be: {error}") from error

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        answer = self._connection.ask({"type": "reset", "seed": seed}, self._timeout)
        return self._seen(answer, "reset"), self._info(answer, "reset")

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        asked = {"type": "step", "action": json_of(self.action_space, action)}
        answer = self._connection.ask(asked, self._timeout)
        reward = answer.get("reward")
        if isinstance(reward, bool) or not isinstance(reward, int | float):
            raise self._wrong("step", f"reward must be a number, got {reward!r}")
        ends = [answer.get(name) for name in ("terminated", "truncated")]
        if not all(isinstance(one, bool) for one in ends):
            raise self._wrong("step", f"terminated and truncated must be true or false, got {ends}")
        seen, info = self._seen(answer, "step"), self._info(answer, "step")
        return seen, float(reward), bool(ends[0]), bool(ends[1]), info

    def close(self) -> None:
        self._end()

    def _seen(self, answer: dict[str, Any], what: str) -> Any:
        if "observation" not in answer:
            raise self._wrong(what, "observation is missing")
        try:
            return value_of(self.observation_space, answer["observation"], "observation")
        except ValueError as error:
            raise self._wrong(what, str(error)) from error

    def _info(self, answer: dict[str, Any], what: str) -> dict[str, Any]:
        told = answer.get("info", {})
        if not isinstance(told, dict):
            raise self._wrong(what, f"info must be an object, got {told!r}")
        try:
            return legal(told, MASK)
        except (ValueError, TypeError, OverflowError) as error:
            raise self._wrong(what, f"info.{MASK} must be ones and zeros: {error}") from error

    def _wrong(self, what: str, text: str) -> Exception:
        return self._connection.failure(f"answered {what!r} wrongly: {text}")
