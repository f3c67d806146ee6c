"""Genetic policy search (Such et al. 2017): https://arxiv.org/abs/1712.06567

A generation of small policies plays, the best ones live on and have children: tournament selection,
uniform crossover, Gaussian mutation. Returns select, and no gradient is taken.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from dlsys.rl import environments
from dlsys.rl.actors import Actors, Counted
from dlsys.rl.agent import Iteration
from dlsys.rl.networks import networks
from dlsys.rl.policy import Policy
from dlsys.spec.rl.environments import Env
from dlsys.spec.rl.job import Environment, RLJob
from dlsys.spec.rl.models import Genetic
from dlsys.train.seeding import seed_all


class Population(nn.Module):
    """The networks of `count` policies."""

    def __init__(self, count: int, env: Env, told: Genetic) -> None:
        super().__init__()
        taken, seen = env.action_space, int(np.prod(env.observation_space.shape or ()))
        self._discrete = isinstance(taken, spaces.Discrete)
        outputs = int(taken.n) if isinstance(taken, spaces.Discrete) else int(np.prod(taken.shape or ()))
        self.network = networks(count, seen, outputs, told.hidden, told.activation)

    def forward_inference(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Actions [count, N, …] for observations [count, N, O]; one policy's [N, …] for [N, O]."""
        seen = batch["obs"]
        out = self.network(seen if seen.ndim == 3 else seen[None])
        out = out if seen.ndim == 3 else out[0]
        return {"actions": out.argmax(-1) if self._discrete else out.tanh()}

    @property
    def genomes(self) -> Tensor:
        """All parameters of each, [count, genes]."""
        return torch.cat([value.detach().flatten(1) for value in self.parameters()], 1)

    @genomes.setter
    def genomes(self, genomes: Tensor) -> None:
        parts = torch.split(genomes, [value[0].numel() for value in self.parameters()], 1)
        for value, part in zip(self.parameters(), parts, strict=True):
            value.data = part.reshape(value.shape).clone()


class Players:
    """Plays with many policies at once."""

    def __init__(self, environment: Environment, told: Genetic) -> None:
        torch.set_num_threads(1)
        self._environment, self._told = environment, told
        self._envs: list[Env] = []

    @torch.no_grad()
    def play(self, genomes: Tensor, seeds: list[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """One episode of each policy from each seed.

        Args:
            genomes: of P policies, [P, genes].
            seeds: the starts of E episodes.

        Returns:
            Discounted returns, undiscounted ones and lengths, [P, E].
        """
        shape = (len(genomes), len(seeds))
        while len(self._envs) < shape[0] * shape[1]:
            self._envs.append(environments.make(self._environment, ends=True))
        population = Population(shape[0], self._envs[0], self._told)
        population.genomes = genomes
        policy = Policy(population)
        going = dict(zip(np.ndindex(shape), self._envs, strict=False))
        seen = torch.zeros(*shape, int(np.prod(self._envs[0].observation_space.shape or ())))
        for (row, start), env in going.items():
            seen[row, start] = torch.as_tensor(env.reset(seed=seeds[start])[0]).flatten()
        discounted, returns, lengths = np.zeros(shape), np.zeros(shape), np.zeros(shape, int)
        while going:
            actions = policy(seen).numpy()
            for place, env in list(going.items()):
                found, reward, terminated, truncated, _ = env.step(actions[place])
                seen[place] = torch.as_tensor(found).flatten()
                discounted[place] += float(reward) * self._told.gamma ** lengths[place]
                returns[place] += float(reward)
                lengths[place] += 1
                if terminated or truncated:
                    del going[place]
        return discounted, returns, lengths

    def close(self) -> None:
        for env in self._envs:
            env.close()  # type: ignore[no-untyped-call]


class RemotePlayers(Players, Counted):
    """In a process of their own."""

    def play(self, genomes: Tensor, seeds: list[int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        with self.counted():
            return super().play(genomes, seeds)


class GeneticAgent:
    """Implements `dlsys.rl.agent.Agent`; an iteration is a generation."""

    def __init__(self, job: RLJob) -> None:
        assert isinstance(job.algorithm, Genetic)
        seed_all(job.seed)
        self._told = told = job.algorithm
        env = environments.make(job.environment)
        self._genomes = Population(told.population, env, told).genomes
        self._best = Population(1, env, told)
        self._best.genomes = self._genomes[:1]
        self.policy = Policy(self._best)
        env.close()  # type: ignore[no-untyped-call]
        self._generator = Generator().manual_seed(job.seed)
        self._players = Players(job.environment, told)
        each = [(job.environment, told)] * job.resources.env_runners
        self._remote = Actors(RemotePlayers, each, job.resources.cpus)

    def iterate(self) -> Iteration:
        began = time.perf_counter()
        starts = torch.randint(2**31, (self._told.episodes,), generator=self._generator).tolist()
        discounted, returns, lengths = self._play(starts)
        sampled = time.perf_counter()
        fitness = torch.from_numpy(discounted.mean(1))
        ranked = fitness.argsort(descending=True, stable=True)
        self._best.genomes = self._genomes[ranked[:1]]
        elite = self._genomes[ranked[: self._told.elite]]
        self._genomes = torch.cat((elite, self._children(fitness)))
        return Iteration(
            steps=int(lengths.sum()),
            returns=returns.flatten().tolist(),
            lengths=lengths.flatten().tolist(),
            figures={
                "fitness_best": float(fitness.max()),
                "fitness_mean": float(fitness.mean()),
                "fitness_std": float(fitness.std()),
            },
            seconds={"sample": sampled - began, "learn": time.perf_counter() - sampled},
        )

    def _play(self, starts: list[int]) -> list[NDArray[Any]]:
        if not self._remote:
            return list(self._players.play(self._genomes, starts))
        shares = self._genomes.tensor_split(len(self._remote))
        found = self._remote.ask(lambda one, index: one.play.remote(shares[index], starts))
        return [np.concatenate(parts) for parts in zip(*found, strict=True)]

    def _children(self, fitness: Tensor) -> Tensor:
        told, random = self._told, self._generator
        count, genes = told.population - told.elite, self._genomes.shape[1]
        drawn = torch.randint(told.population, (2, count, told.tournament), generator=random)
        winners = drawn.gather(2, fitness[drawn].argmax(2, keepdim=True)).squeeze(2)
        mother, father = self._genomes[winners]
        both = torch.rand(count, 1, generator=random) < told.crossover
        other = torch.rand(count, genes, generator=random) < 0.5
        noise = torch.randn(count, genes, generator=random)
        return torch.where(both & other, father, mother) + told.mutation * noise

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        with torch.inference_mode():
            seen = torch.as_tensor(observations, dtype=torch.float32).flatten(1)
            actions: NDArray[Any] = self.policy(seen).numpy()
        return actions

    def state(self) -> dict[str, Any]:
        return {
            "genomes": self._genomes,
            "best": self._best.genomes,
            "generator": self._generator.get_state(),
        }

    def load(self, state: dict[str, Any]) -> None:
        self._genomes, self._best.genomes = state["genomes"], state["best"]
        self._generator.set_state(state["generator"])

    def weights(self) -> dict[str, NDArray[Any]]:
        return {name: value.numpy() for name, value in self._best.state_dict().items()}

    def close(self) -> None:
        self._players.close()
        self._remote.close()


def policy(job: RLJob, weights: Mapping[str, Tensor]) -> Policy:
    """The best policy, from its weights."""
    assert isinstance(job.algorithm, Genetic)
    env = environments.make(job.environment)
    best = Population(1, env, job.algorithm)
    best.load_state_dict(dict(weights))
    env.close()  # type: ignore[no-untyped-call]
    return Policy(best)
