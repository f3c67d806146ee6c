"""The loop of `kind: rl`, whichever agent learns in it: iterate, log, evaluate, save, stop."""

from __future__ import annotations

import csv
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch

from dlsys.errors import CheckpointError, NonFiniteError
from dlsys.rl.agent import Agent, Iteration
from dlsys.rl.environments import LONGEST
from dlsys.rl.evaluate import Played, play
from dlsys.rl.plain import decode, encode
from dlsys.spec.fingerprint import fingerprint, refuse_changes
from dlsys.spec.metrics import best as better
from dlsys.spec.rl.job import RLJob
from dlsys.spec.section import Interval
from dlsys.train.best import Best, to_test
from dlsys.train.checkpoint import CheckpointStore, Position, Saved
from dlsys.train.engine import Surroundings
from dlsys.train.loop import Result
from dlsys.train.meter import SystemMeter
from dlsys.train.stop import Reason, Stopper
from dlsys.train.world import World

# The episodes whose mean return is told while training, as RLlib and Stable-Baselines3 do.
_WINDOW = 100


@dataclass
class Loop:
    """One agent's run. `position.step` counts the environment's steps, `position.epoch` iterations."""

    job: RLJob
    agent: Agent
    around: Surroundings
    position: Position = field(default_factory=Position)
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        watched = self.job.checkpoint.best
        mode = watched and better(self.job, watched)
        self.best = Best(watched, "min" if mode == "min" else "max")
        self._data = fingerprint(self.job, self.around.folder)
        self._recent: deque[tuple[float, int]] = deque(maxlen=_WINDOW)
        self._system = SystemMeter(0)
        self._saved_at = self.position.step
        self._converged = self._told_cut = False

    @property
    def _store(self) -> CheckpointStore:
        return self.around.store

    def resume(self, saved: Saved) -> None:
        """Goes on from a checkpoint.

        Raises:
            UsageError: the recorded episodes are not those that it began with.
        """
        if self.job.checkpoint.changed_data == "refuse":
            refuse_changes(
                saved.loop.get("data", {}), self._data, f"the checkpoint of step {saved.position.step}"
            )
        otherwise = self.agent.load(decode(saved.optimizers["agent"])) or []
        self.position = saved.position
        self.metrics = dict(saved.loop["metrics"])
        told = self.best.load_state_dict(saved.loop["best"])
        self._recent.extend((float(value), int(length)) for value, length in saved.loop["recent"])
        self._saved_at = self.position.step
        self.around.recorder.note(f"continues from the checkpoint of step {saved.position.step}")
        for text in [told, *otherwise]:
            if text:
                self.around.recorder.note(text)

    def run(self) -> Result:
        """Trains; returns when `stop` holds or someone asked for the end."""
        around, position = self.around, self.position
        self._stopper = Stopper(self.job, World(), around.stop_requested, position.step + 1, around.pause)
        reason = self._reason()
        try:
            while reason is None:
                reason = self._iterate()
        except Exception:
            with suppress(CheckpointError):  # the first error is the one to tell
                self._store.wait()
            raise
        if self._saved_at != position.step:
            self.save()
        if reason not in ("paused", "interrupted") and around.tested:
            note = around.recorder.note
            if saved := to_test(self.best, self._store, position.step, note):
                self.agent.load(decode(saved.optimizers["agent"]))
            self.evaluate("test", self.job.episodes.test)
            if around.stop_requested():
                reason = "interrupted"
            else:
                self._draw()
        self._store.wait()
        return Result(reason, position, self.metrics)

    def _iterate(self) -> Reason | None:
        position, before = self.position, self.position.step
        self.around.beat(position.step)
        began = time.perf_counter()
        did = self.agent.iterate()
        seconds = time.perf_counter() - began
        position.step += did.steps
        position.epoch += 1
        position.seconds += seconds
        self._converged = did.done
        self.log(did, seconds)
        self._stopper.agree(position, seconds)
        reason, improved = self._reason(), False
        if reason != "interrupted" and (reason or self._due(self.job.evaluate, before)):
            improved = self.evaluate("valid", self.job.episodes.valid)
            reason = self._reason()
        if improved or reason or self._due(self.job.checkpoint.every, before):
            self.save(best=improved)
        return reason

    def _reason(self) -> Reason | None:
        return self._stopper.reason(self.position, self.metrics) or ("finished" if self._converged else None)

    def _due(self, interval: Interval, before: int) -> bool:
        if interval.unit == "step":  # an iteration takes many of them
            return self.position.step // interval.count > before // interval.count
        return self._stopper.due(interval, self.position, True)

    def log(self, did: Iteration, seconds: float) -> None:
        """Logs one iteration's figures.

        Raises:
            NonFiniteError: the loss is not finite: what the agent knows is spoilt.
        """
        if not abs(loss := did.figures.get("loss", 0.0)) < float("inf"):
            raise NonFiniteError(f"step {self.position.step}: train/loss is {loss}; nothing was saved")
        self._recent.extend(zip(did.returns, did.lengths, strict=True))
        values = {f"train/{name}": value for name, value in did.figures.items()}
        values |= {"train/epoch": float(self.position.epoch), "train/episodes": float(len(did.returns))}
        if self._recent:
            returns, lengths = zip(*self._recent, strict=True)
            values |= {"train/return": float(np.mean(returns)), "train/length": float(np.mean(lengths))}
        self.metrics.update(values)
        speed = {f"perf/{name}_seconds": value for name, value in did.seconds.items()}
        speed |= {
            "perf/samples_per_second": did.steps / seconds,
            "perf/step_seconds": seconds / max(did.steps, 1),
        }
        self.around.recorder.metrics(self.position.step, {**values, **speed, **self._system.take({}, None)})

    def evaluate(self, split: Literal["valid", "test"], episodes: int) -> bool:
        """Plays episodes; returns whether `checkpoint.best`'s metric reached a new best."""
        played = play(
            self.agent,
            self.job.environment,
            episodes,
            sees=self.job.algorithm.SEES,
            seed=self.job.seed,
            split=split,
            explore=self.job.episodes.explore,
            beat=lambda: self.around.beat(self.position.step),
            stop=self.around.stop_requested,
        )
        if played is None:
            return False
        self._tell_cut(played)
        self._record(split, played)
        values = {f"{split}/{name}": value for name, value in played.summary().items()}
        self.metrics.update(values)
        progress = {"train/epoch": float(self.position.epoch)}
        self.around.recorder.metrics(self.position.step, {**values, **progress})
        return split == "valid" and self.best.improves(values)

    def _tell_cut(self, played: Played) -> None:
        if played.cut and not self._told_cut:
            self._told_cut = True
            self.around.recorder.note(
                f"{played.cut} of {len(played.lengths)} evaluation episodes had no end and were cut after "
                f"{LONGEST:,} steps; environment.max_steps says where to cut"
            )

    def _record(self, split: str, played: Played) -> None:
        """Keeps every evaluation episode: `artifacts/episodes.csv`."""
        folder = self.around.artifacts
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "episodes.csv"
        new = not path.exists()
        with open(path, "a", newline="") as file:
            rows = csv.writer(file)
            if new:
                rows.writerow(("step", "split", "seed", "return", "length", *played.told))
            columns = (played.seeds, played.returns, played.lengths, *played.told.values())
            for seed, value, length, *ends in zip(*columns, strict=True):
                figures = (f"{value:.6g}", length, *(f"{end:.6g}" for end in ends))
                rows.writerow((self.position.step, split, seed, *figures))

    def _draw(self) -> None:
        """Leaves pictures of one episode among the run's artifacts, where the environment draws any."""
        from dlsys.rl.pictures import draw

        why = draw(
            self.agent,
            self.job.environment,
            self.around.artifacts,
            gamma=self.job.algorithm.gamma,
            seed=self.job.seed,
            sees=self.job.algorithm.SEES,
        )
        if why:
            self.around.recorder.note(f"no pictures of an episode: {why}")

    def save(self, *, best: bool = False) -> None:
        """Saves the whole state."""
        self.around.beat(self.position.step)
        loop: dict[str, Any] = {
            "best": self.best.state_dict(),
            "data": self._data,
            "metrics": self.metrics,
            "recent": [list(pair) for pair in self._recent],
        }
        model = {name: torch.as_tensor(value) for name, value in self.agent.weights().items()}
        saved = Saved(self.position, model, {"agent": encode(self.agent.state())}, loop=loop)
        self._store.save(saved, best=best)
        self._saved_at = self.position.step
        self._stopper.saved()
