"""Parameter servers (Li et al. 2014, https://www.usenix.org/system/files/conference/osdi14/osdi14-paper-li_mu.pdf).

Every worker holds a replica of the model for its forward and backward passes; the optimizer is on
the servers, which hold the parameters that count.

* In step (`sync`, and `ssp` with a bound of 0): servers add the workers' gradients in the order of
  ranks and tell every worker the square of their part's norm; workers clip by the whole norm, or
  stop at a NaN, before anything has moved. This computes what one worker computes.
* `async` (Recht et al. 2011, arXiv:1106.5730): a push is applied when it arrives. One of n workers
  gives the mean gradient over its own share of a global batch, and it is applied with lr / n: a
  global batch moves the parameters about as far as under one worker. Clipping and penalties
  happen at the worker. Who is quick takes more shares: they are handed out as workers ask, and
  those of a worker that dies go to the others, who need not stop.
* `ssp` (Ho et al. 2013): as `async`, but every worker takes its own share of each step, and nobody
  is more than `staleness` steps ahead of the slowest.

With `push: updates`, workers make `local_steps` steps with an optimizer of their own, and push what
these changed; servers average.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.data.loader import Loader, MicroBatch, StepBatch
from dlsys.errors import UsageError
from dlsys.spec.section import Interval
from dlsys.spec.train.strategy import PS
from dlsys.train.ps.client import Client
from dlsys.train.ps.meeting import ElasticWorld, Meetings, open_meetings
from dlsys.train.ps.shards import share_out
from dlsys.train.regularize import clip
from dlsys.train.schedule import apply
from dlsys.train.strategies.base import Parts, State, StepResult
from dlsys.train.strategies.phase import TrainedPhase
from dlsys.train.strategies.single import SingleStrategy
from dlsys.train.world import World
from dlsys.zoo.workload import Carry


@dataclass
class _Span:
    """The steps up to the next meeting, when their shares are handed out.

    Attributes:
        loader, epoch, done: where the first share is: behind `done` steps of an epoch.
        meeting: the last step's number in the run.
        size: shares of each step; they are numbered step by step, by rank in each.
        common: those of the steps before the last.
        share: the one that this worker makes.
    """

    loader: Loader
    epoch: int
    done: int
    meeting: int
    size: int
    common: int
    share: int = 0

    @property
    def number(self) -> int:
        """The step of the share in the epoch, from 1."""
        return self.done + self.share // self.size + 1

    def batch(self) -> StepBatch:
        return self.loader.make(self.epoch, self.number - 1, self.share % self.size)


class PSStrategy(SingleStrategy):
    _client: Client
    _meetings: Meetings | None = None
    _span: _Span | None = None

    def setup(self, parts: Parts) -> None:
        super().setup(parts)
        options, world = parts.job.strategy, parts.world
        assert isinstance(options, PS)
        self._options = options
        if parts.servers is None:
            raise UsageError(
                "strategy: ps needs parameter servers, and the launcher gave no addresses",
                hint="dlsys run starts them; who calls run_worker gives Surroundings.servers.",
            )
        self._apart = not options.in_step
        if options.mode == "async" and any(trained.phase.every > 1 for trained in self._phases):
            raise UsageError(
                f"strategy: async hands out shares of steps, and {parts.job.workload} has a phase that "
                "runs only at some steps: use mode: sync or ssp"
            )
        tables = {
            f"{name}.weight" for name, part in self._model.named_modules() if isinstance(part, nn.Embedding)
        }
        layouts = share_out(
            {trained.phase.name: trained.named for trained in self._phases},
            tables,
            servers=len(parts.servers.addresses),
            split_bytes=options.split_mb * 2**20,
        )
        self._named = {name: weight for trained in self._phases for name, weight in trained.named}
        self._client = Client(
            parts.servers, layouts, self._named, rank=world.rank, size=world.size, patient=self._apart
        )
        self._world = world
        if self._shares_out:
            self._meetings = open_meetings(world, parts.servers, parts.note)
        self._settled = True
        # With `push: updates`: what the servers had when this worker went its own way, and for how long.
        self._base: dict[str, dict[str, Tensor]] = {}
        self._own_steps: dict[str, int] = {}
        self._last_step = 0
        self._load({})  # here all meet in the process group, once they are at the meeting point
        self._world = self.gathering(world)
        self._counted = self._totals  # what setting up has sent is no step's

    def _load(self, optimizers: Mapping[str, Any]) -> None:
        """Makes this replica, the same on all workers, the servers' state."""
        if self._parts.world.is_main:
            states = {phase: saved["state"] for phase, saved in optimizers.items()}
            self._client.load(self._named, {} if self._options.push == "updates" else states)
        self._meet()
        for trained in self._phases:
            self._go_apart(trained)

    def _meet(self) -> None:
        """Returns when every worker has called it."""
        self._world.sum(torch.zeros(()))

    def gathering(self, world: World) -> World:
        if self._meetings is None:
            return world
        return ElasticWorld(**vars(world), meetings=self._meetings)

    def close(self) -> None:
        if self._meetings is not None:
            self._meetings.close()
        if hasattr(self, "_client"):  # not if setting up failed
            self._client.close()

    # -- a step

    def train_step(self, batch: StepBatch, step: int, hyper: Mapping[str, float | None]) -> StepResult:
        self._settled = False
        result = super().train_step(batch, step, hyper)
        if self._span is not None and step == self._span.meeting:
            while self._take(self._span):
                more = super().train_step(self._span.batch(), step, hyper)
                result.sums = {name: value + more.sums[name] for name, value in result.sums.items()}
                result.shares += 1
        return result

    def update(
        self, trained: TrainedPhase, step: int, hyper: Mapping[str, float | None], sums: dict[str, Tensor]
    ) -> Tensor:
        if self._options.push == "updates":
            norm = super().update(trained, step, hyper, sums)
            self._own_steps[trained.phase.name] += 1
            if self._own_steps[trained.phase.name] == self._options.local_steps:
                self._push_changes(trained, step)
            return norm
        apply(trained.optimizer, hyper)  # it makes no step here, but says the rate in checkpoints
        self._scaler.unscale(trained.parameters)
        gradients = {name: weight.grad for name, weight in trained.named}
        if self._apart:
            return self._push(trained, step, hyper, gradients, sums)
        job = self._parts.job
        whole = self._client.gather(trained.phase.name, gradients)
        norm = torch.tensor(whole, dtype=torch.float64)
        if not self.may_update(whole, trained, step, sums):
            return norm
        bound = job.gradient.clip_norm or self._parts.regularizers.clip_norm
        # As torch's clip_grad_norm_ has it.
        scale = min(1.0, bound / (whole + 1e-6)) if bound else 1.0
        self._client.apply(trained.phase.name, hyper, scale)
        return norm

    def _push(
        self,
        trained: TrainedPhase,
        step: int,
        hyper: Mapping[str, float | None],
        gradients: Mapping[str, Tensor | None],
        sums: dict[str, Tensor],
    ) -> Tensor:
        job, regularizers = self._parts.job, self._parts.regularizers
        regularizers.penalize(trained.named)
        norm = clip(
            trained.parameters, job.gradient.clip_norm or regularizers.clip_norm, job.gradient.clip_value
        )
        self.may_update(float(norm), trained, step, sums)
        rate = hyper["lr"]
        share = {**hyper, "lr": rate / self._parts.world.size if rate is not None else None}
        self._client.push(trained.phase.name, step, gradients, share, 1.0, self._share)
        return norm

    def _go_apart(self, trained: TrainedPhase) -> None:
        self._own_steps[trained.phase.name] = 0
        if self._options.push == "updates":
            self._base[trained.phase.name] = {name: weight.detach().clone() for name, weight in trained.named}

    def _push_changes(self, trained: TrainedPhase, step: int) -> None:
        """Pushes what this worker's own steps changed; its weights become the servers'."""
        phase = trained.phase.name
        base = self._base[phase]
        changes: dict[str, Tensor | None] = {
            name: weight.detach() - base[name] for name, weight in trained.named
        }
        with torch.no_grad():  # rows that nobody changed do not come back
            for name, weight in trained.named:
                weight.copy_(base[name])
        if self._apart:
            share = self._share if self._own_steps[phase] == 1 else None
            self._client.push(phase, step, changes, {}, 1 / self._parts.world.size, share)
        else:
            self.may_update(self._client.gather(phase, changes), trained, step, {})
            self._client.apply(phase, {}, 1.0)
        self._last_step = step
        self._go_apart(trained)

    def finish(self) -> None:
        sent, received, seconds = (now - then for now, then in zip(self._totals, self._counted, strict=True))
        self._counted = self._totals
        self._traffic.add(sent=sent, received=received, seconds=seconds, exposed=seconds)

    @property
    def _totals(self) -> tuple[float, float, float]:
        """Bytes to and from the servers, and seconds of talk with them, since the start."""
        return *self._client.traffic, self._client.seconds

    # -- shares of work

    def meets(self, step: int) -> bool:
        if not self._shares_out:
            return True
        job = self._parts.job
        due = (Interval(job.tracking.log_every, "step"), job.evaluate, job.checkpoint.every)
        return step == job.stop.steps or any(i.unit == "step" and step % i.count == 0 for i in due)

    @property
    def _shares_out(self) -> bool:
        """Whether shares go to whoever asks; carried state ties a share to its worker."""
        carried = self._parts.workload.order == "streams"
        return self._options.mode == "async" and self._parts.world.size > 1 and not carried

    def batches(self, loader: Loader, epoch: int, done: int, before: int) -> Iterator[tuple[int, StepBatch]]:
        if not self._shares_out:
            yield from super().batches(loader, epoch, done, before)
            return
        rank, size = self.data_place
        last = loader.order.steps_per_epoch
        while done < last:
            meeting = next(n for n in range(done + 1, last + 1) if n == last or self.meets(before + n))
            common = (meeting - 1 - done) * size
            self._span = span = _Span(loader, epoch, done, before + meeting, size, common)
            # Of the step at which workers meet, each makes its own share; `train_step` makes what the
            # dead have left of any of them.
            while self._take(span) and span.share < span.common:
                yield span.number, span.batch()
            assert span.share == span.common + rank, "everybody gets a share of its own"
            yield meeting, span.batch()
            done = meeting

    def _take(self, span: _Span) -> bool:
        """Makes the next share this worker's; whether there is one."""
        assert self._meetings is not None
        share = self._meetings.take(span.meeting, span.common)
        if share is not None:
            span.share = share
        return share is not None

    @property
    def _share(self) -> tuple[int, int] | None:
        """By what the servers know a share again."""
        return (self._span.meeting, self._span.share) if self._span else None

    # -- whole states

    def _settle(self) -> None:
        """Makes all replicas equal; called on all workers at the same steps."""
        if self._settled:
            return
        self._settled = True
        for trained in self._phases:
            if self._own_steps[trained.phase.name] and self._options.push == "updates":
                self._push_changes(trained, self._last_step)
        if self._apart:
            self._meet()
            self._client.pull()
            for trained in self._phases:
                self._go_apart(trained)

    def agree(self) -> None:
        """Running statistics stay each worker's own: one that died would be waited for."""

    def evaluate_step(self, micro: MicroBatch, carry: Carry) -> tuple[dict[str, Tensor], Carry]:
        self._settle()
        return super().evaluate_step(micro, carry)

    def state_out(self) -> State:
        """The whole state on rank 0; under `push: updates`, with rank 0's own optimizer."""
        self._settle()
        state = super().state_out()
        if self._options.push == "gradients" and self._parts.world.is_main:
            for phase, states in self._client.states().items():
                names = [
                    name for group in state.optimizers[phase]["param_groups"] for name in group["params"]
                ]
                state.optimizers[phase]["state"] = {name: states[name] for name in names if name in states}
        if self._apart:
            self._meet()  # nobody pushes while rank 0 reads
        return state

    def state_in(self, state: State) -> None:
        if self._options.push == "updates":
            super().state_in(state)
        else:
            idle = {phase: {**saved, "state": {}} for phase, saved in state.optimizers.items()}
            super().state_in(replace(state, optimizers=idle))
        self._load(state.optimizers)
        if self._apart:
            self._client.pull()

    def communication(self) -> Mapping[str, float]:
        received = self._traffic.received / max(1, self._traffic.steps)
        found = {**self._traffic.means(timed=True), "ps/received_bytes_per_step": received}
        if self._apart and self._parts.world.is_main and (lags := self._client.lags()):
            pushes = sum(lags.values())
            found["ps/staleness_max"] = float(max(lags))
            found["ps/staleness_mean"] = sum(lag * count for lag, count in lags.items()) / pushes
        return found
