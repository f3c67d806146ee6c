"""Proves that strategies compute the same thing: `dlsys verify`.

The job trains once with one worker, and once under each strategy and number of workers, with the
same seed and the same global batches. What they logged at each step, and the weights they ended
with, are held against each other. All are runs of their own, children of one run in MLflow.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsys.errors import RunError, SpecError, UsageError
from dlsys.jobs import run as runs
from dlsys.jobs.driving import Driving, Ending, Note, silent
from dlsys.jobs.mirror.node import Mirror
from dlsys.paths import RunPaths
from dlsys.registry import STRATEGIES
from dlsys.spec.card import DATA_PARALLEL
from dlsys.spec.load import Loaded, load
from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.strategy import approximates
from dlsys.track.spool import Spool, records

if TYPE_CHECKING:
    from dlsys.train.trace import Difference

_NEVER = "999999999 steps"
# With `all`, an option that makes another strategy of one is a case of its own; it takes 4 workers.
_MESH = "tensor:size=2+data=shard"


@dataclass(frozen=True)
class Case:
    """One strategy with one number of workers.

    Attributes:
        label: the strategy as the user named it: `zero` or `zero:stage=3`.
        loaded: its job; None where that is refused, with the reason in `refusal`.
    """

    label: str
    workers: int
    loaded: Loaded | None
    refusal: str = ""


@dataclass
class Row:
    """What a case showed; figures are None where it did not come to them.

    Attributes:
        verdict: `reference`, `agrees`, `disagrees`, `differs` (it is an approximation by design, or
            the workload is), `refused` or `failed`.
        why: what is out of tolerance, or why it is no proof, or the error.
        loss, grad_norm: largest relative difference of a step.
        weight, tensor: largest absolute difference of a parameter, and which.
        first_step: the first step that is out of tolerance.
        peak_memory_mb: of each rank.
        sent_bytes: by each worker and step.
    """

    strategy: str
    workers: int
    verdict: str
    why: str = ""
    run: str = ""
    loss: float | None = None
    grad_norm: float | None = None
    weight: float | None = None
    tensor: str = ""
    first_step: int | None = None
    steps_per_second: float | None = None
    peak_memory_mb: list[float] = field(default_factory=list)
    sent_bytes: float | None = None

    @property
    def bad(self) -> bool:
        return self.verdict in ("disagrees", "failed")


def cases(
    path: Path, overrides: Sequence[str], strategies: str, steps: int, workers: Sequence[int], cpus: float
) -> list[Case]:
    """The reference first, then every strategy with every number of workers.

    Args:
        strategies: `all` that the workload allows, or names with commas between, each perhaps with
            options: `ddp,zero:stage=3`.
        cpus: of the machine; the workers share them.

    Raises:
        UsageError: an unknown strategy, or the job itself is bad.
    """
    base = load(path, overrides)
    names = _allowed(base.training) if strategies == "all" else [s.strip() for s in strategies.split(",")]
    common = [
        *overrides,
        f"stop={{steps: {steps}}}",
        "tracking.log_every=1",
        f"evaluate={_NEVER}",
        f"checkpoint={{every: {_NEVER}, keep: 1}}",
        "expect={}",
        "baseline=null",
        "failure.retries=0",
        "failure.elastic=null",  # each case has its own number of workers
    ]
    single = load(path, [*common, "strategy={name: single}", "resources.workers=1"])
    found = [Case("single", 1, single)]
    for label in names:
        name, _, options = label.partition(":")
        if name not in STRATEGIES:
            raise UsageError(f"--strategies: {STRATEGIES.unknown(name)}")
        own = base.training.strategy is not None and base.training.strategy.name == name
        changes = [] if own else [f"strategy={{name: {name}}}"]
        changes += [f"strategy.{option}" for option in options.split("+") if option]
        for count in workers:
            if strategies == "all" and label == _MESH and count < 4:
                continue
            share = min(base.job.resources.cpus, cpus / count)
            places = [f"resources.workers={count}", f"resources.cpus={share:g}"]
            try:
                found.append(Case(label, count, load(path, [*common, *places, *changes])))
            except SpecError as error:
                if strategies != "all":
                    raise
                found.append(Case(label, count, None, "; ".join(p.text for p in error.problems)))
    return found


def _allowed(job: TrainJob) -> list[str]:
    card = job.card
    names = [name for name in (card.strategies if card else DATA_PARALLEL) if name != "single"]
    return [*names, _MESH] if {"tensor", "fsdp"} <= {*names} else names


def verify(todo: Sequence[Case], *, address: str | None, note: Note = silent) -> tuple[str, list[Row]]:
    """Runs all cases and compares them with the first; returns the parent run's id, and the rows.

    Args:
        address: a running Ray cluster; None embeds one for each run.
        note: gets a sentence when a case begins or ends.

    Raises:
        RunError: the reference itself failed.
        Interrupted: the user ended it.
    """
    reference = todo[0].loaded
    assert reference is not None, "the reference is checked before anything runs"
    steps = str(reference.job.stop.steps)
    paths = runs.prepare_parent(
        reference, "verify", {"steps": steps, "workload": reference.training.workload}
    )
    rows: list[Row] = []
    ended = Ending(run_id=paths.id)
    # The runs have mirrors of their own; what this one's folder holds is for MLflow alone.
    driving = Driving(paths, ended, Mirror(paths, ""), note=note)
    driving.conclude = lambda: _keep(rows, paths)
    with driving, closing(Spool(paths.spool / "rank-0.jsonl")) as spool:
        for row in _rows(todo, paths, address, note):
            rows.append(row)
            spool.metrics(len(rows), _metrics(row))
            driving.check()
        if bad := [f"{row.strategy} × {row.workers}" for row in rows if row.bad]:
            ended.cause = f"not as one worker: {', '.join(bad)}"
        else:
            ended.status = "FINISHED"
    if ended.error is not None:
        raise ended.error
    return paths.id, rows


def _keep(rows: list[Row], paths: RunPaths) -> None:
    paths.artifacts.mkdir(exist_ok=True)
    (paths.artifacts / "verify.json").write_text(json.dumps([asdict(row) for row in rows], indent=1))


def _metrics(row: Row) -> dict[str, float]:
    """A row for MLflow, by strategy: its steps are the rows of the table."""
    name = f"{row.strategy.replace(':', ' ').replace('=', ' ').replace('+', ' ')} x{row.workers}"
    values = {"loss": row.loss, "grad_norm": row.grad_norm, "weight": row.weight}
    return {f"difference/{kind}/{name}": value for kind, value in values.items() if value is not None}


def _rows(todo: Sequence[Case], parent: RunPaths, address: str | None, note: Note) -> Iterator[Row]:
    from dlsys.train.trace import Trace, compare

    reference: Trace | None = None
    for number, case in enumerate(todo, 1):
        row = Row(case.label, case.workers, "refused", case.refusal)
        if case.loaded is not None:
            note(f"{number} of {len(todo)}: {case.label}, {_several(case.workers)}")
            paths = runs.prepare(case.loaded, parent=parent.id)
            row = replace(row, run=paths.id)
            ended = runs.execute(
                paths, case.loaded.job, address=address if case.workers > 1 else None, note=note
            )
            if ended.status == "KILLED" and ended.error is not None:
                raise ended.error
            if ended.error is not None:
                if reference is None:
                    raise RunError(f"the job fails with one worker already: {ended.error}") from ended.error
                # What only the data could tell: a layer that these workers cannot share.
                row.verdict = "refused" if isinstance(ended.error, UsageError) else "failed"
                row.why = " ".join(str(ended.error).split())
            else:
                points, weights = _left_behind(paths)
                _figures(row, points)
                trace = Trace.of(points.get(0, {}), weights)
                if reference is None:
                    row.verdict, reference = "reference", trace
                else:
                    _judge(row, case.loaded.training, compare(reference, trace))
        yield row


def _several(workers: int) -> str:
    return f"{workers} worker{'s' if workers > 1 else ''}"


def _judge(row: Row, job: TrainJob, found: Difference) -> None:
    row.loss, row.grad_norm = found.loss, found.norm
    row.weight, row.tensor, row.first_step = found.weight, found.tensor, found.first_step
    row.verdict, row.why = ("agrees", "") if found.agrees else ("disagrees", "; ".join(found.problems))
    if found.agrees:
        return
    card = job.card
    if card and (why := card.inexact(card.options_of(job.model))):
        row.why += f". {why[0].upper()}{why[1:]}"
    if job.model.get("dropout") or any("dropout" in chosen.name for chosen in job.regularize):
        row.why += ". Each worker draws its own dropout masks; without dropout it is exact"
    if job.strategy is not None and (reason := approximates(job.strategy)):
        row.verdict, row.why = "differs", reason


def _left_behind(paths: RunPaths) -> tuple[dict[int, dict[str, dict[int, float]]], dict[str, Any]]:
    """What a run's workers logged, by rank, name and step; and its final weights."""
    from dlsys.train.checkpoint import CheckpointStore

    points: dict[int, dict[str, dict[int, float]]] = {}
    for file in sorted(paths.spool.glob("rank-*.jsonl")):
        mine = points.setdefault(int(file.stem.partition("-")[2]), {})
        for record, _ in records(file):
            for name, value in record.get("m", {}).items():
                mine.setdefault(name, {})[int(record["s"])] = float(value)
    saved = CheckpointStore(paths.checkpoints, keep=1).latest()
    return points, saved.model if saved else {}


def _figures(row: Row, points: dict[int, dict[str, dict[int, float]]]) -> None:
    main = points.get(0, {})
    seconds = sorted(main.get("perf/step_seconds", {}).values())
    if seconds:
        row.steps_per_second = 1 / max(seconds[len(seconds) // 2], 1e-9)
    sent = main.get("perf/sent_bytes_per_step", {})
    row.sent_bytes = sent[max(sent)] if sent else None
    for rank in sorted(points):
        peak = points[rank].get(f"system/rank{rank}/peak_memory_mb", {})
        row.peak_memory_mb.append(max(peak.values(), default=0.0))


def machine_cpus() -> float:
    return float(len(os.sched_getaffinity(0)))
