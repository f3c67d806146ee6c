"""Deep Q-networks (Mnih et al. 2015), and what Rainbow adds to them (https://arxiv.org/abs/1710.02298).

With a memory the network learns from pieces of what an environment did, each from what it remembered there
then (Kapturowski et al. 2019); the first quarter of a piece only brings what is remembered up to date.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.rl.actions import Actions
from dlsys.rl.adam import Adam
from dlsys.rl.chances import mask_of
from dlsys.rl.networks import Seeing, activation
from dlsys.rl.observations import Observations, tensors
from dlsys.rl.off_policy import OffPolicy
from dlsys.rl.own import Stateful
from dlsys.rl.sampler import Told
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.section import at
from dlsys.spec.rl.value import DQN


class NoisyLinear(nn.Module):
    """A linear layer whose weights have noise of a learned scale (https://arxiv.org/abs/1706.10295).

    The noise is factorized: f(x)·f(y) with f(x) = sign(x)·√|x|, a row of it for the inputs and one for the
    outputs.

    Args:
        wide: inputs.
        out: outputs.
        scale: σ₀; each σ starts at σ₀/√inputs.
    """

    def __init__(self, wide: int, out: int, scale: float) -> None:
        super().__init__()
        bound = 1 / math.sqrt(wide)
        self.weight = nn.Parameter(torch.empty(out, wide).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(out).uniform_(-bound, bound))
        self.weight_sigma = nn.Parameter(torch.full((out, wide), scale * bound))
        self.bias_sigma = nn.Parameter(torch.full((out,), scale * bound))
        self.noise: tuple[Tensor, Tensor] | None = None

    def draw(self, generator: torch.Generator | None = None) -> None:
        """New noise."""
        out, wide = self.weight.shape
        # Where the generator is, which may be elsewhere than the weights.
        device = self.weight.device if generator is None else generator.device
        raw = torch.randn(wide + out, generator=generator, device=device).to(self.weight.device)
        shaped = raw.sign() * raw.abs().sqrt()
        self.noise = shaped[:wide], shaped[wide:]

    def forward(self, inputs: Tensor) -> Tensor:
        if self.noise is None:
            return nn.functional.linear(inputs, self.weight, self.bias)
        wide, out = self.noise
        weight = self.weight + self.weight_sigma * torch.outer(out, wide)
        return nn.functional.linear(inputs, weight, self.bias + self.bias_sigma * out)


class QNetwork(Seeing):
    """What actions are worth. Implements `dlsys.rl.runners.Policy`.

    With noise, every layer after the features has it, but the first where there is more than one: its noise
    would be of the observation's scale. It is drawn anew for each update and each step of the environments,
    and is nought when the best known actions are asked for.
    """

    def __init__(self, observations: Observations, actions: Actions, job: RLJob) -> None:
        super().__init__(observations, job)
        told = job.algorithm
        assert isinstance(told, DQN)
        self._told, self.choices, width = told, actions.counts[0], self.width
        layers: list[nn.Module] = []
        for index, after in enumerate(told.hidden):
            layers += [
                self._linear(width, after, noisy=told.noisy and index > 0),
                activation(told.activation),
            ]
            width = after
        self.body = nn.Sequential(*layers)
        self.advantage = self._linear(width, self.choices * told.atoms, noisy=told.noisy)
        self.value = self._linear(width, told.atoms, noisy=told.noisy) if told.dueling else None
        self._noisy = [layer for layer in self.modules() if isinstance(layer, NoisyLinear)]
        self.atoms: Tensor
        self.register_buffer("atoms", torch.linspace(told.v_min, told.v_max, told.atoms), persistent=False)
        self._epsilon = 0.0

    def _linear(self, wide: int, out: int, *, noisy: bool) -> nn.Module:
        return NoisyLinear(wide, out, self._told.noise) if noisy else nn.Linear(wide, out)

    def set(self, told: Mapping[str, float]) -> None:
        self._epsilon = told.get("epsilon", 0.0)

    @contextmanager
    def noise(self, generator: torch.Generator | None = None) -> Iterator[None]:
        """Within it, its weights have noise, if it is told so."""
        for layer in self._noisy:
            layer.draw(generator)
        try:
            yield
        finally:
            for layer in self._noisy:
                layer.noise = None

    def outputs(self, features: Tensor) -> Tensor:
        """Of each action its value, or the logarithms of its returns' shares: [N, actions, atoms]."""
        inner = self.body(features)
        advantage = self.advantage(inner).unflatten(-1, (self.choices, self._told.atoms))
        if self.value is None:
            return advantage
        over = (
            advantage.mean(1, keepdim=True)
            if self._told.dueling == "mean"
            else advantage.amax(1, keepdim=True)
        )
        return self.value(inner).unsqueeze(1) + advantage - over

    def mean(self, outputs: Tensor, mask: Tensor | None = None) -> Tensor:
        """What actions are worth [N, actions], of outputs; those that are not legal, nothing that one would
        take."""
        single = self._told.atoms == 1
        found = outputs.squeeze(-1) if single else (outputs.softmax(-1) * self.atoms).sum(-1)
        return found if mask is None else found.masked_fill(~mask, torch.finfo(found.dtype).min)

    def explore(self, seen: dict[str, Tensor], memory: Tensor, generator: torch.Generator | None) -> Told:
        features, memory = self.remembered(seen, memory)
        mask = mask_of(seen)
        with self.noise(generator):
            best = self.mean(self.outputs(features), mask).argmax(-1)
        if self._epsilon:
            legal = features.new_ones(len(best), self.choices) if mask is None else mask.float()
            random = torch.multinomial(legal, 1, generator=generator).squeeze(-1)
            drawn = torch.rand(len(best), generator=generator, device=best.device) < self._epsilon
            best = torch.where(drawn, random, best)
        return best, {}, memory

    def best(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The actions that are worth most."""
        features, memory = self.remembered(seen, memory)
        return self.mean(self.outputs(features), mask_of(seen)).argmax(-1), memory


class DQNAgent(OffPolicy):
    """An iteration is a thousand steps of the environments, and the updates that they bring."""

    NETWORK = QNetwork
    network: QNetwork

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = job.algorithm
        assert isinstance(told, DQN)
        self._told = told
        self._target = copy.deepcopy(self.network).requires_grad_(False)
        self._adam = Adam(self.network, at(told.lr, 0), clip=told.clip_norm)
        self._renewed = 0

    @property
    def optimizers(self) -> Mapping[str, Stateful]:
        return {"adam": self._adam}

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {**super().parts, "target": self._target}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        if len(self.network.initial):
            return None
        return self.network.mean(self.network.outputs(self.network.features(seen)), mask_of(seen)).amax(-1)

    def exploring(self) -> Mapping[str, float]:
        told = self._told
        if told.noisy:
            return {}
        share = min(self.step / told.epsilon_steps, 1.0)
        return {"epsilon": 1.0 + (told.epsilon - 1.0) * share}

    def update(self) -> dict[str, Tensor]:
        if self.step - self._renewed >= self._told.target_every:
            self._target.load_state_dict(self.network.state_dict())
            self._renewed = self.step
        with self.network.noise(self.generator), self._target.noise(self.generator):
            loss, figures = self._recurrent() if self.network.memory is not None else self._single()
        norm = self._adam.step(loss, at(self._told.lr, self.step))
        return {"loss": loss.detach(), **figures, "gradient_norm": norm}

    def _single(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of steps by themselves."""
        drawn, columns = self.drawn()
        before, after = tensors(drawn.seen, self.device), tensors(drawn.following, self.device)
        network, target = self.network, self._target
        outputs = network.outputs(network.features(before))
        with torch.no_grad():
            later = target.outputs(target.features(after))
            chosen = later if not self._told.double else network.outputs(network.features(after))
            best = network.mean(chosen, mask_of(after)).argmax(-1)
        each, errors, values = self._errors(outputs, later, best, columns)
        self.replay.prioritize(drawn.rows, errors)
        loss = (columns["weights"] * each).mean()
        return loss, {"q": values.mean(), "td_error": errors.mean()}

    def _errors(
        self, outputs: Tensor, later: Tensor, best: Tensor, columns: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Losses, temporal-difference errors and values of steps, [B] each.

        Args:
            outputs: where they began, [B, actions, atoms].
            later: where they led to, likewise, the target network's.
            best: what is done there, [B].
            columns: `actions`, `rewards` and `going` of the steps, [B].
        """
        every = torch.arange(len(best), device=best.device)
        taken, following = outputs[every, columns["actions"].long()], later[every, best]
        rewards, going = columns["rewards"].unsqueeze(-1), columns["going"].unsqueeze(-1)
        if self._told.atoms == 1:
            values, wanted = taken.squeeze(-1), (rewards + going * following).squeeze(-1)
            each = nn.functional.huber_loss(values, wanted, reduction="none")
            return each, (values - wanted).abs().detach(), values.detach()
        atoms = self.network.atoms
        wanted = projected(following.softmax(-1), rewards + going * atoms, atoms)
        each = nn.functional.cross_entropy(taken, wanted, reduction="none")
        return each, each.detach(), (taken.softmax(-1) * atoms).sum(-1).detach()

    def _recurrent(self) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of pieces of episodes, one step after the other."""
        length = self.job.model.sequence
        pieces = self.replay.pieces(max(1, self._told.batch_size // length), length)
        seen, first = tensors(pieces.seen, self.device), torch.from_numpy(pieces.first).to(self.device)
        memory = torch.from_numpy(pieces.memory).to(self.device)

        def outputs(network: QNetwork) -> Tensor:
            return network.outputs(network.through(seen, memory, first)).unflatten(0, first.shape)

        mine = outputs(self.network)
        with torch.no_grad():
            later = outputs(self._target)[1:].flatten(0, 1)
            chosen = later if not self._told.double else mine[1:].flatten(0, 1)
            mask = mask_of(seen)
            best = self.network.mean(chosen, None if mask is None else mask[1:].flatten(0, 1)).argmax(-1)
        columns = tensors(
            {
                "actions": pieces.actions.reshape(-1),
                "rewards": self.rewards.scaled(pieces.rewards).reshape(-1),
                "going": (self._told.gamma * ~pieces.terminated).astype("float32").reshape(-1),
            },
            self.device,
        )
        each, errors, values = self._errors(mine[:-1].flatten(0, 1), later, best, columns)
        # What an episode would have come to that was cut is not among what was seen.
        counts = torch.from_numpy(~pieces.cut).to(self.device)
        counts[: len(counts) // 4] = False
        counts = counts.flatten().float()
        loss = (each * counts).sum() / counts.sum().clamp(min=1)
        return loss, {"q": values.mean(), "td_error": errors.mean()}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "renewed": self._renewed}

    def load(self, state: dict[str, Any]) -> list[str]:
        self._renewed = state["renewed"]
        return super().load(state)


def projected(shares: Tensor, moved: Tensor, atoms: Tensor) -> Tensor:
    """A distribution on other points, on the atoms (https://arxiv.org/abs/1707.06887, equation 7).

    Args:
        shares: [B, atoms], how likely each point is.
        moved: [B, atoms], where it lies; beyond the first and the last atom it counts as there.
        atoms: [atoms], evenly apart.

    Returns:
        [B, atoms]: each point's share goes to its two neighbours, more of it to the nearer one.
    """
    apart = atoms[1] - atoms[0]
    away = (moved.clamp(atoms[0], atoms[-1]).unsqueeze(-1) - atoms).abs() / apart
    return (shares.unsqueeze(-1) * (1 - away).clamp(0, 1)).sum(1)
