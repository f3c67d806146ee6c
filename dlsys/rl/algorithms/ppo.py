"""Proximal policy optimization (Schulman et al. 2017): https://arxiv.org/abs/1707.06347

Advantages are standardized in each minibatch, values are not clipped, and an episode that was cut goes on in
the value of what was seen last. With a memory, minibatches are pieces of episodes through which it is
learned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from dlsys.rl.adam import Adam
from dlsys.rl.chances import Chances
from dlsys.rl.on_policy import Batch, OnPolicy, Rows
from dlsys.rl.own import Stateful
from dlsys.rl.runners import Runners
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.policy import PPO
from dlsys.spec.rl.section import at

# The weight of the penalty doubles where the divergence is this much above the goal, and halves where it is
# that much below, as in the paper.
_KL_GOAL, _KL_ROOM = 0.01, 1.5


class PPOAgent(OnPolicy):
    """An iteration is a batch, and passes over it."""

    def __init__(self, job: RLJob, runners: Runners | None = None) -> None:
        super().__init__(job, runners=runners)
        assert isinstance(job.algorithm, PPO)
        self._told = told = job.algorithm
        self._adam = Adam(self.network, at(told.lr, 0), eps=1e-5, clip=told.clip_norm)
        self._kl = told.kl

    @property
    def optimizers(self) -> Mapping[str, Stateful]:
        return {"adam": self._adam}

    def learn(self, batch: Batch) -> dict[str, float]:
        told, rate = self._told, at(self._told.lr, self.step)
        clip, entropy = at(told.clip, self.step), at(told.entropy, self.step)
        told_by_updates: list[dict[str, Tensor]] = []
        for _ in range(told.passes):
            for rows, chances, values in self._minibatches(batch):
                loss, figures = self._loss(rows, chances, values, clip, entropy)
                told_by_updates.append({**figures, "gradient_norm": self._adam.step(loss, rate)})
        means = {
            name: float(torch.stack([each[name] for each in told_by_updates]).mean())
            for name in told_by_updates[0]
        }
        if told.kl:
            self._kl *= 2 if means["kl"] > _KL_GOAL * _KL_ROOM else 1
            self._kl /= 2 if means["kl"] < _KL_GOAL / _KL_ROOM else 1
        flat = batch.flat()
        missed = (flat.returns - flat.values).var(unbiased=False)
        explained = 1 - missed / flat.returns.var(unbiased=False).clamp(min=1e-12)
        return {**means, "explained_variance": float(explained), "lr": rate}

    def _minibatches(self, batch: Batch) -> Iterator[tuple[Rows, Chances, Tensor]]:
        """Rows in random order, what the policy would do there now, and what it expects."""
        flat, size = batch.flat(), self._told.minibatch_size
        if self.network.memory is None:
            # Rows are put in order once, and not picked for each minibatch.
            for rows in flat[torch.randperm(len(flat), generator=self.generator)].split(size):
                yield rows, *self.network.rows(rows.seen)
            return
        steps, environments = batch.first.shape
        length = min(self.job.model.sequence, steps)
        # The last piece overlaps the one before where they do not come out even.
        begins = sorted({*range(0, steps - length + 1, length), steps - length})
        pieces = torch.cartesian_prod(torch.tensor(begins), torch.arange(environments))
        order = torch.randperm(len(pieces), generator=self.generator)
        for some in order.split(max(1, size // length)):
            begin, column = pieces[some].T
            index = (begin + torch.arange(length).unsqueeze(1)) * environments + column  # [length, pieces]
            rows = flat[index.flatten()]
            seen = {name: value.unflatten(0, index.shape) for name, value in rows.seen.items()}
            first = batch.first.flatten()[index]
            yield rows, *self.network.sequences(seen, batch.memories[begin, column], first)

    def _loss(
        self, rows: Rows, chances: Chances, values: Tensor, clip: float, entropy: float
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some rows, and what it is made of."""
        told = self._told
        gains = rows.advantages
        if len(gains) > 1:
            gains = (gains - gains.mean()) / (gains.std() + 1e-8)
        away = chances.logp(rows.actions) - rows.logp
        ratio = away.exp()
        policy_loss = -torch.min(gains * ratio, gains * ratio.clamp(1 - clip, 1 + clip)).mean()
        value_loss = (values - rows.returns).square().mean()
        surprise = chances.entropy().mean()
        # Schulman's estimate of the divergence from the actions that were drawn, http://joschu.net/blog/kl-approx.html
        kl = (ratio - 1 - away).mean()
        loss = policy_loss + told.value_weight * value_loss - entropy * surprise + self._kl * kl
        figures = {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": surprise,
            "kl": kl,
        }
        return loss, {name: value.detach() for name, value in figures.items()}

    def state(self) -> dict[str, object]:
        return {**super().state(), "kl": self._kl}

    def load(self, state: dict[str, object]) -> list[str]:
        self._kl = float(state["kl"])  # type: ignore[arg-type]
        return super().load(state)
