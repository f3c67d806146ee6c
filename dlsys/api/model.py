"""A run's trained model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlsys.api.runs import Run, find
from dlsys.api.visit import visit
from dlsys.errors import CheckpointError, UsageError
from dlsys.jobs.moved import folder_of
from dlsys.paths import RunPaths
from dlsys.spec.load import Loaded, load_any
from dlsys.spec.rows import Shape
from dlsys.spec.script.load import LoadedScript

if TYPE_CHECKING:
    from torch import nn

    from dlsys.train.checkpoint import Saved


@visit
def load_model(run: Run | str, /, *, best: bool = True) -> nn.Module:
    """The model that a run trained, on the CPU and in eval mode.

    It is built by the run's own workload from its options, and takes what its `forward` takes; the data is
    not needed.

    Args:
        run: one, or the beginning of its id.
        best: takes the checkpoint that was tested: the best one, where the job's `checkpoint.best` names
            its metric; else the last.

    Raises:
        UsageError: no such run, no checkpoint, or it has no model of this kind.
        CheckpointError: it is damaged, or does not fit the model that the workload builds now.
        WorkloadError: the user's module cannot be imported.
    """
    found = find(run) if isinstance(run, str) else run
    if found.folder is None or not found.folder.is_dir():
        raise UsageError(f"{found.id}: its folder is not here, and its checkpoints are nowhere else")
    paths = RunPaths(found.folder)
    loaded = load_any(paths.spec, folder=folder_of(paths), there="none")
    if isinstance(loaded, LoadedScript):
        raise UsageError(f"{found.id}: is a script's, whose model is where the script put it")
    if not isinstance(loaded, Loaded):
        raise UsageError(f"{found.id}: is a sweep", hint="Its best trial has a model: sweep.best.")
    if loaded.agent is not None:
        raise UsageError(
            f"{found.id}: trains an agent, whose policy is more than a module",
            hint=f"dlsys runs export {found.id} policy.pt2, then torch.export.load(...).module().",
        )
    return _built(found.id, loaded, paths, best=best)


def _built(name: str, loaded: Loaded, paths: RunPaths, *, best: bool) -> nn.Module:
    import torch

    from dlsys.train.checkpoint.export import best_or_latest, chosen
    from dlsys.train.precision import Precision
    from dlsys.zoo.load import load_workload

    job = loaded.training
    saved = best_or_latest(paths.checkpoints) if best else chosen(paths.checkpoints)
    workload = load_workload(job.workload, job.model, _shape(saved, loaded), job.inputs)
    with torch.random.fork_rng(devices=[]):  # building draws weights
        model = workload.build()
    model.to(dtype=Precision(job.precision, torch.device("cpu")).floats)
    try:
        model.load_state_dict(saved.weights)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:500]
        raise CheckpointError(
            f"{name}: the weights of step {saved.position.step} do not fit what {job.workload} builds: {why}",
            hint="Its code has changed since, it seems.",
        ) from error
    return model.eval()


def _shape(saved: Saved, loaded: Loaded) -> Shape:
    """What the model was built for; checkpoints that do not say it are of an earlier version."""
    if (told := saved.loop.get("shape")) is not None:
        return Shape.of_json(told)
    from dlsys import data

    return data.load(loaded.training.data, loaded.folder).shape
