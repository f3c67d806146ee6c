"""Sums between two log points, and where a step's time goes."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

import psutil
import torch
from torch import Tensor

from dlsys.train.strategies.base import StepResult
from dlsys.train.world import World


class Meter:
    """Adds up what the loop logs as means.

    The loss's sums are part of a checkpoint, so that the first point logged after a resume is
    the mean over all of its steps; times are not.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._norm: Tensor = torch.zeros(())
        self._figures: Mapping[str, float] = {}
        self._clear_times()

    def _clear_times(self) -> None:
        self._data = self._total = 0.0
        self._steps = self._rows = 0

    def add(self, result: StepResult, rows: int, data_seconds: float, total_seconds: float) -> None:
        for name, value in result.sums.items():
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
            self._counts[name] = self._counts.get(name, 0) + result.shares
        self._norm, self._figures = result.grad_norm, result.figures
        self._data += data_seconds
        self._total += total_seconds
        self._steps += 1
        self._rows += rows

    def take(self, world: World) -> dict[str, float]:
        """The means since the last call, over all workers; called on all of them."""
        names = sorted(self._sums)
        # Where workers share steps out, they make unequal numbers of them.
        counts = [torch.tensor(self._counts[name], device=world.device) for name in names]
        found = [float(total) for total in world.sum_all([*(self._sums[name] for name in names), *counts])]
        values = {
            f"train/{name}": total * world.size / count
            for name, total, count in zip(names, found[: len(names)], found[len(names) :], strict=True)
        }
        norm = float(self._norm)
        if names and math.isfinite(norm):  # that of a skipped step says nothing
            values["train/grad_norm"] = norm
        values.update({f"train/{name}": value for name, value in self._figures.items()})
        self._sums.clear()
        self._counts.clear()
        return values

    def take_times(self, communication: dict[str, float]) -> dict[str, float]:
        """This worker's mean step time in seconds and its split, and the global samples/s.

        The parts add up to the whole: compute is what neither waits for data nor, uncovered by
        computing, for other workers.
        """
        if not self._steps:
            return {}
        step, data = self._total / self._steps, self._data / self._steps
        exposed = min(_exposed(communication, step - data) or 0.0, step - data)
        values = {
            "perf/samples_per_second": self._rows / self._total,
            "perf/step_seconds": step,
            "perf/data_seconds": data,
            "perf/communication_seconds": exposed,
            "perf/compute_seconds": step - data - exposed,
        }
        if "bytes" in communication:
            values["perf/sent_bytes_per_step"] = communication["bytes"]
        # What only this strategy knows has a name with a place of its own: `ps/staleness_max`.
        values.update({name: value for name, value in communication.items() if "/" in name})
        self._clear_times()
        return values

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sums = dict(state.get("sums", {}))
        self._counts = {name: int(count) for name, count in state.get("counts", {}).items()}


def _exposed(communication: Mapping[str, float], seconds: float) -> float | None:
    """What of a step's seconds a worker waited for others; None where nobody knows."""
    if "exposed_share" in communication:
        return communication["exposed_share"] * seconds
    return communication.get("exposed_seconds")


class SystemMeter:
    """Memory and network of this worker's process and machine, at most once a second."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._peak = 0
        self._process = psutil.Process()
        self._last = psutil.net_io_counters()
        self._taken = time.monotonic()
        self._first = True
        self._busy: list[float] = []
        self._sent: list[float] = []

    def take(self, communication: Mapping[str, float], step_seconds: float | None) -> dict[str, float]:
        """Peak memory in MB, the machine's traffic and what this worker sends in its steps in Gbit/s, and the
        seconds of a step in which it did not wait for others, since they were last taken.

        Nothing within a second of that: asking the system costs as much as a tenth of a small step.

        Args:
            communication: of the steps since the last call, as the strategy tells it.
            step_seconds: their mean time.
        """
        if step_seconds is not None and (waited := _exposed(communication, step_seconds)) is not None:
            self._busy.append(max(0.0, step_seconds - waited))
        if step_seconds and "bytes" in communication:
            self._sent.append(8e-9 * communication["bytes"] / step_seconds)
        seconds = time.monotonic() - self._taken
        if seconds < 1 and not self._first:
            return {}
        self._taken, self._first = time.monotonic(), False
        self._peak = max(self._peak, self._process.memory_info().rss)
        now, last = psutil.net_io_counters(), self._last
        self._last = now
        gbit = 8e-9 / max(seconds, 1e-6)
        prefix = f"system/rank{self._rank}"
        values = {f"{prefix}/peak_memory_mb": self._peak / 1e6}
        if torch.cuda.is_available():
            values[f"{prefix}/peak_gpu_memory_mb"] = torch.cuda.max_memory_allocated() / 1e6
        if now is not None and last is not None:
            values[f"{prefix}/machine_recv_gbit"] = (now.bytes_recv - last.bytes_recv) * gbit
            values[f"{prefix}/machine_transmit_gbit"] = (now.bytes_sent - last.bytes_sent) * gbit
        if self._sent:
            values[f"{prefix}/sent_gbit"] = sum(self._sent) / len(self._sent)
            self._sent.clear()
        if self._busy:
            values[f"{prefix}/busy_seconds"] = sum(self._busy) / len(self._busy)
            self._busy.clear()
        return values
