"""Advantage actor-critic, in step (A2C; Mnih et al. 2016): https://arxiv.org/abs/1602.01783

One step of the optimizer for each batch. Advantages are not standardized: of one short rollout, that would
take away whether it was good.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.chances import Chances
from dlsys.rl.on_policy import Batch, OnPolicy, Rows
from dlsys.rl.runners import EnvRunner, Runners
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.policy import A2C, A3C

# Steps of one iteration at least: it does several updates, since each is small.
STEPS = 2000


class A2CAgent(OnPolicy):
    """An iteration is several batches, each of which is learned from once."""

    def __init__(
        self,
        job: RLJob,
        runners: Runners | None = None,
        *,
        steps: int | None = None,
        kind: type[EnvRunner] = EnvRunner,
    ) -> None:
        super().__init__(job, steps=steps, least=STEPS, kind=kind, runners=runners)
        self._parameters = list(self.network.parameters())
        assert isinstance(job.algorithm, A2C | A3C)
        self._adam = torch.optim.Adam(self._parameters, job.algorithm.lr, fused=True)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self._adam}

    def learn(self, batch: Batch) -> dict[str, float]:
        figures = differentiate(self.network, batch, self.job)
        self._adam.step()
        return figures


def differentiate(network: ActorCritic, batch: Batch, job: RLJob) -> dict[str, float]:
    """Gives a network's parameters the gradient of a batch, clipped; figures by name.

    With a memory, the gradient goes back through `model.sequence` steps.
    """
    told = job.algorithm
    assert isinstance(told, A2C | A3C)
    parameters = list(network.parameters())
    for parameter in parameters:
        parameter.grad = None
    sums = torch.zeros(3)
    for rows, chances, values, share in _pieces(network, batch, job.model.sequence):
        policy_loss = -(chances.logp(rows.actions) * rows.advantages).mean()
        value_loss, entropy = (values - rows.returns).square().mean(), chances.entropy().mean()
        loss = policy_loss + told.value_weight * value_loss - told.entropy * entropy
        (loss * share).backward()  # type: ignore[no-untyped-call]
        sums += torch.stack([policy_loss, value_loss, entropy]).detach().cpu() * share
    figures = dict(zip(("policy_loss", "value_loss", "entropy"), sums.tolist(), strict=True))
    figures["loss"] = figures["policy_loss"] + told.value_weight * figures["value_loss"]
    figures["loss"] -= told.entropy * figures["entropy"]
    if told.clip_norm is not None:
        figures["gradient_norm"] = float(clip_grad_norm_(parameters, told.clip_norm))
    return figures


def _pieces(network: ActorCritic, batch: Batch, length: int) -> Iterator[tuple[Rows, Chances, Tensor, float]]:
    """Rows, what the policy would do there, what it expects, and their share of the batch: all of it, or with
    a memory, so many steps at a time."""
    if network.memory is None:
        rows = batch.flat()
        yield rows, *network.rows(rows.seen), 1.0
        return
    steps = len(batch.first)
    for piece in batch.pieces(min(length, steps)):
        chances, values = network.sequences(piece.seen, piece.memories[0], piece.first)
        yield piece.flat(), chances, values, len(piece.first) / steps
