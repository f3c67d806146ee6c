"""Steps environments for RLlib, without its pipelines of connectors.

RLlib's own runner keeps every step of every environment as Python objects and sends each through ten
connectors and back; that takes longer than acting. On plain spaces none of it changes anything, so here
steps are rows of arrays, and episodes are cut from them when they are handed over. What a recurrent policy
remembers is not kept in the episodes. What is sampled is the same, number by number; a test holds both
against each other.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from ray.rllib.core.columns import Columns
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.env.utils.infinite_lookback_buffer import InfiniteLookbackBuffer
from torch import Tensor

from dlsys.errors import DlsysError

_WEIGHTS = "weights_seq_no"


class LeanEnvRunner(SingleAgentEnvRunner):
    """As RLlib's, for steps (not whole episodes) of what has plain spaces."""

    env: Any
    module: Any
    config: Any
    _needs_initial_reset: bool

    def __init__(self, **told: Any) -> None:
        super().__init__(**told)
        # They hold each parameter against its range, which takes longer than drawing from it.
        torch.distributions.Distribution.set_default_validate_args(False)
        spaces = gymnasium.spaces
        self._plain = (
            self.env is not None
            and self.module is not None
            and isinstance(self.env.single_observation_space, spaces.Box)
            and isinstance(self.env.single_action_space, spaces.Discrete | spaces.Box)
            and self.config._env_to_module_connector is None
            and self.config._module_to_env_connector is None
        )
        self._seen: NDArray[Any] = np.empty(0)
        # Whether an environment's next step is its reset.
        self._ended: NDArray[np.bool_] = np.empty(0, bool)
        # What a recurrent policy remembers of each environment's episode, [envs, …] by name.
        self._memory: dict[str, Tensor] = {}
        self._ids: list[str] = []
        self._steps: list[int] = []

    def _sample(
        self,
        *,
        num_timesteps: int | None = None,
        num_episodes: int | None = None,
        explore: bool,
        random_actions: bool = False,
        force_reset: bool = False,
    ) -> list[SingleAgentEpisode]:
        if num_timesteps is None or random_actions or not self._plain:
            told: dict[str, Any] = {
                "num_timesteps": num_timesteps,
                "num_episodes": num_episodes,
                "explore": explore,
            }
            self._seen = np.empty(0)
            return list(super()._sample(**told, random_actions=random_actions, force_reset=force_reset))
        if force_reset or self._needs_initial_reset or not len(self._seen):
            self._reset()
        self.module.eval()  # once: RLlib does it, and undoes it, at each step
        rows: list[dict[str, NDArray[Any]]] = []
        taken, ended_before = 0, self._ended
        while taken < num_timesteps:
            row = self._act(explore, taken)
            seen, rewards, terminated, truncated, _ = self._try_env_step(row[Columns.ACTIONS])
            rows.append(
                {**row, "seen": self._seen, "r": rewards, "terminated": terminated, "truncated": truncated}
            )
            taken += int(self.num_envs - self._ended.sum())
            self._forget(self._ended)
            self._seen, self._ended = seen, terminated | truncated
        columns = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        columns["seen"] = np.concatenate([columns["seen"], self._seen[None]])
        episodes = [episode for i in range(self.num_envs) for episode in self._cut(i, columns, ended_before)]
        over = [episode for episode in episodes if episode.is_done]
        self._done_episodes_for_metrics.extend(over)
        self._log_env_steps(metric=self._metrics_num_env_steps_sampled, num_steps=taken)
        self._increase_sampled_metrics(taken, len(over))
        return over + [episode for episode in episodes if not episode.is_done]

    def apply(self, func: Callable[..., Any], *args: Any, **told: Any) -> Any:
        """RLlib's waits a minute after an error and ends the process, so that nobody hears of it. Those of
        the user's environment are the same in any process: the learner gets them (`dlsys.rl.rllib`)."""

        def called(runner: Any, *args: Any, **told: Any) -> Any:
            try:
                return func(runner, *args, **told)
            except DlsysError as error:
                return error

        return super().apply(called, *args, **told)

    def _try_env_step(self, actions: Any) -> Any:
        """RLlib's tells a user's error as an empty one of its own."""
        found = self.env.step(actions)
        self._log_env_steps(metric=self._metrics_num_try_env_step, num_steps=1)
        return found

    def _reset(self) -> None:
        self._ongoing_episodes_for_metrics.clear()
        seed = self._seed if self._needs_initial_reset else None
        self._seen, _ = self._try_env_reset(seed=seed, options=None)
        self._needs_initial_reset = False
        self._ended = np.zeros(self.num_envs, bool)
        self._forget(~self._ended)
        self._ids = [uuid.uuid4().hex for _ in range(self.num_envs)]
        self._steps = [0] * self.num_envs

    def _forget(self, which: NDArray[np.bool_]) -> None:
        """Environments whose episodes begin now."""
        if self.module.is_stateful() and which.any():
            rows = torch.from_numpy(which)
            for name, first in self.module.get_initial_state().items():
                before = self._memory.get(name, first.new_empty(self.num_envs, *first.shape))
                self._memory[name] = before.index_put((rows,), first.detach())

    @torch.no_grad()
    def _act(self, explore: bool, taken: int) -> dict[str, NDArray[Any]]:
        """The columns of one step of all environments."""
        batch: dict[str, Any] = {Columns.OBS: torch.from_numpy(np.asarray(self._seen)).to(self._device)}
        if self._memory:
            batch = {Columns.OBS: batch[Columns.OBS].unsqueeze(1), Columns.STATE_IN: self._memory}
        if explore:
            runners = self.config.num_env_runners or 1
            step = (self.num_env_steps_sampled_lifetime // runners + taken) * runners
            out = self.module._forward_exploration(batch, t=step)
            kind = self.module.get_exploration_action_dist_cls
        else:
            out, kind = self.module._forward_inference(batch), self.module.get_inference_action_dist_cls
        if self._memory:
            self._memory = out.pop(Columns.STATE_OUT)
            out = {name: value.squeeze(1) for name, value in out.items()}
        if Columns.ACTIONS not in out:
            chances = kind().from_logits(out[Columns.ACTION_DIST_INPUTS])
            if not explore:
                chances = chances.to_deterministic()
            actions = chances.sample()
            out = {**out, Columns.ACTIONS: actions, Columns.ACTION_LOGP: chances.logp(actions)}
        row = {name: value.detach().cpu().numpy() for name, value in out.items()}
        row[_WEIGHTS] = np.full(self.num_envs, self._weights_seq_no)
        return row

    def _cut(
        self, index: int, columns: dict[str, NDArray[Any]], ended_before: NDArray[np.bool_]
    ) -> list[SingleAgentEpisode]:
        """The episodes, and parts of episodes, of one environment."""
        terminated, truncated = columns["terminated"][:, index], columns["truncated"][:, index]
        ends = [int(step) for step in np.flatnonzero(terminated | truncated)]
        begin, found = 0, []
        if ended_before[index]:
            self._begin(index)
            begin = 1
        for end in ends:
            episode = self._episode(index, columns, begin, end + 1)
            own: Any = {index: episode}  # looked up by the index
            self._make_on_episode_callback("on_episode_end", index, own)
            found.append(episode)
            begin = end + 2
            if end + 1 < len(terminated):  # else the next call begins with the reset
                self._begin(index)
        if begin < len(terminated):
            episode = self._episode(index, columns, begin, len(terminated))
            self._ongoing_episodes_for_metrics[episode.id_].append(episode)
            self._steps[index] += len(episode)
            found.append(episode)
        return found

    def _begin(self, index: int) -> None:
        self._ids[index], self._steps[index] = uuid.uuid4().hex, 0

    def _episode(
        self, index: int, columns: dict[str, NDArray[Any]], begin: int, end: int
    ) -> SingleAgentEpisode:
        def rows(name: str, more: int = 0, space: Any = None) -> InfiniteLookbackBuffer:
            return InfiniteLookbackBuffer(columns[name][begin : end + more, index], lookback=0, space=space)

        own = {"seen", "r", "terminated", "truncated", Columns.ACTIONS}
        return SingleAgentEpisode(
            id_=self._ids[index],
            observations=rows("seen", 1),
            observation_space=self.env.single_observation_space,
            infos=InfiniteLookbackBuffer([{}] * (end - begin + 1), lookback=0),
            actions=rows(Columns.ACTIONS),
            action_space=self.env.single_action_space,
            rewards=rows("r"),
            terminated=bool(columns["terminated"][end - 1, index]),
            truncated=bool(columns["truncated"][end - 1, index]),
            extra_model_outputs={name: rows(name) for name in columns if name not in own},
            t_started=self._steps[index],
            len_lookback_buffer=0,
        )
