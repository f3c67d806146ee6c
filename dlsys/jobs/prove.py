"""Proves that a job meets what it expects and beats its baseline: `dlsys prove`.

The job trains, and then its baseline: the same job with the same seed, but for what `baseline.set` says.
Both are runs of their own, children of one run in MLflow.
"""

from __future__ import annotations

import json
import math
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

from dlsys.errors import ExpectationError, NonFiniteError, Problem, RunError, SpecError
from dlsys.jobs import run as runs
from dlsys.jobs.driving import Driving, Ending, Note, silent
from dlsys.jobs.mirror.node import Mirror
from dlsys.paths import RunPaths
from dlsys.spec.baseline import WITHOUT, aimless
from dlsys.spec.load import Loaded, load
from dlsys.spec.metrics import aim
from dlsys.spec.overrides import as_given
from dlsys.spec.train.job import TrainJob
from dlsys.spec.yaml import dotted
from dlsys.track.spool import Spool


@dataclass
class Side:
    """What one of the two came to.

    Attributes:
        run: its id.
        metrics: their last values.
        seconds: wall time.
        diverged: whether a figure of it was no number; then anything is better.
        changes: what it does otherwise than the job, as a command line would say it.
    """

    run: str
    metrics: dict[str, float]
    seconds: float
    diverged: bool = False
    changes: list[str] = field(default_factory=list)


@dataclass
class Proof:
    """What was seen.

    Attributes:
        run: the id of the run that both are children of.
        missed: what the job falls short of, a sentence each.
        better: by how much each metric of `baseline.by` is better than the baseline's; negative where it is
            worse, and empty where the baseline diverged.
    """

    run: str
    job: Side | None = None
    baseline: Side | None = None
    missed: list[str] = field(default_factory=list)
    better: dict[str, float] = field(default_factory=dict)


def load_both(path: Path, overrides: list[str]) -> tuple[Loaded, Loaded | None]:
    """The job, and its baseline where it has one.

    Raises:
        UsageError: one of them is wrong.
    """
    loaded = load(path, overrides)
    if not isinstance(loaded.job, TrainJob) or loaded.job.baseline is None:
        return loaded, None
    if unknown := list(aimless(loaded.job)):
        raise SpecError([Problem(str(path), 0, dotted(place), text) for place, text in unknown])
    return loaded, load(path, [*overrides, *as_given({**loaded.job.baseline.set, **WITHOUT})])


def prove(loaded: Loaded, other: Loaded | None, *, address: str | None, note: Note = silent) -> Proof:
    """Trains both and compares them.

    Args:
        address: a running Ray cluster; None embeds one for each run that needs it.
        note: gets a sentence when one begins.

    Raises:
        RunError: one of them failed, otherwise than by falling short or by diverging.
        Interrupted: the user ended it.
    """
    paths = runs.prepare_parent(loaded, "prove", loaded.job.subject)
    proof, ended = Proof(paths.id), Ending(run_id=paths.id)
    # The runs have mirrors of their own; what this one's folder holds is for MLflow alone.
    driving = Driving(paths, ended, Mirror(paths, ""), note=note)
    driving.conclude = lambda: _keep(proof, paths)
    with driving, closing(Spool(paths.spool / "rank-0.jsonl")) as spool:
        note(f"trains {loaded.job.name}")
        proof.job = _train(loaded, paths, address, note, [])
        proof.missed = runs.unmet(loaded.job, proof.job.metrics)
        driving.check()
        if other is not None:
            assert loaded.training.baseline is not None, "it has none without"
            changes = [*as_given(loaded.training.baseline.set)]
            note(f"trains its baseline: {' '.join(changes)}")
            proof.baseline = _train(other, paths, address, note, changes)
            _compare(proof, loaded.training)
            spool.metrics(1, {f"better/{name}": by for name, by in proof.better.items()})
        if proof.missed:
            ended.cause = "; ".join(proof.missed)
        else:
            ended.status = "FINISHED"
    if ended.error is not None:
        raise ended.error
    return proof


def _train(loaded: Loaded, parent: RunPaths, address: str | None, note: Note, changes: list[str]) -> Side:
    paths = runs.prepare(loaded, parent=parent.id)
    ended = runs.execute(paths, loaded.job, address=address, note=note)
    # An untamed baseline may do what the job is there to prevent.
    diverged = bool(changes) and isinstance(ended.error, NonFiniteError)
    if not (ended.error is None or diverged or isinstance(ended.error, ExpectationError)):
        raise ended.error
    return Side(paths.id, ended.metrics, ended.seconds, diverged, changes)


def _compare(proof: Proof, job: TrainJob) -> None:
    """Fills in by how much the job is better, and where that is not enough.

    Raises:
        RunError: a metric was never measured.
    """
    assert job.baseline is not None, "there is something to compare with"
    assert proof.job is not None, "likewise"
    assert proof.baseline is not None, "likewise"
    others = proof.baseline.metrics
    proof.baseline.diverged |= any(math.isnan(others.get(name, 0.0)) for name in job.baseline.by)
    if proof.baseline.diverged:
        return
    for name, least in job.baseline.by.items():
        mine, other = proof.job.metrics.get(name), others.get(name)
        if mine is None or other is None:
            raise RunError(f"baseline.by.{name}: was never measured, so that nothing can be compared")
        gain = mine - other if aim(job, name) == "max" else other - mine
        proof.better[name] = gain
        # 0.97 is better than 0.72 by 0.25, whatever is left of that in binary.
        if not (gain >= least or math.isclose(gain, least, rel_tol=1e-9)):
            wanted = f"better by {least:g} or more" if least else "no worse"
            proof.missed.append(f"{name} is {mine:.6g}, the baseline's {other:.6g}, expected {wanted}")


def _keep(proof: Proof, paths: RunPaths) -> None:
    paths.artifacts.mkdir(exist_ok=True)
    (paths.artifacts / "prove.json").write_text(json.dumps(asdict(proof), indent=1))
