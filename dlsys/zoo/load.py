"""From what a job file says under `workload:` to a `Workload`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from torch import nn

from dlsys.errors import UsageError
from dlsys.own.imports import import_own
from dlsys.registry import import_string
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.data.fit import misfit_of_fields
from dlsys.spec.explain import explain
from dlsys.spec.libraries import architecture
from dlsys.spec.rows import Shape
from dlsys.spec.section import Section
from dlsys.spec.train.job import TrainJob
from dlsys.zoo.configured import config_options, configured, from_config
from dlsys.zoo.confusion import of_classes
from dlsys.zoo.cues import ShapeBias
from dlsys.zoo.imported import PlainModel
from dlsys.zoo.library import built
from dlsys.zoo.objective import loss_function
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.tasks.regress import Regress
from dlsys.zoo.tasks.segment import Segment
from dlsys.zoo.workload import Workload


def load_workload(
    name: str, options: Mapping[str, Any], shape: Shape, inputs: Sequence[str] = ()
) -> Workload:
    """The workload of a job.

    Args:
        name: a catalogue name, `library/name` of an architecture, or `module:attr` of a `Workload`
            subclass, of an `nn.Module` class, or of a function that returns an `nn.Module`. The working
            directory is searched first, as `python -m` does.
        options: the job's `model:` section.
        shape: what the data source hands out.
        inputs: of a plain model: the fields that it is given.

    Raises:
        UsageError: unknown name, wrong options, or an attribute that is no workload.
        WorkloadError: the user's module cannot be imported.
    """
    if of := architecture(name):
        return PlainModel(*built(of, options, shape), shape, inputs, name)
    if ":" not in name:
        card = WORKLOADS.load(name)
        if wrong := misfit_of_fields(shape.row, card.rows, name):
            raise UsageError(f"data: {wrong}")
        if wrong := card.wrong_preset(options):
            raise UsageError(f"model.preset: {wrong}")
        code: type[Workload] = import_string(card.workload)
        return code(_checked(card.options_of, options, card.options, name), shape)
    found: Any = import_own(name, "workload")
    if isinstance(found, nn.Module):
        raise UsageError(
            f"workload: {name} is a model that is already built: its weights would come from the "
            "import, not from the job's seed",
            hint="name its class, or a function that returns a new one",
        )
    if isinstance(found, type) and issubclass(found, Workload):
        if inputs:
            raise UsageError(f"inputs: {name} is a workload, which knows its inputs: leave it out")
        return found(_checked(found.Options.model_validate, options, found.Options, name), shape)
    if not callable(found) or (isinstance(found, type) and not issubclass(found, nn.Module)):
        raise UsageError(
            f"workload: {name} is {found!r}: it must be a Workload class, an nn.Module class or a "
            "function that returns an nn.Module"
        )
    if configured(found):
        taken = config_options(found, name, options, shape)
        return PlainModel(from_config(found), taken, shape, inputs, name)
    _check_arguments(name, found, options)
    return PlainModel(found, options, shape, inputs, name)


def workload_of(job: TrainJob, shape: Shape, learnt: Mapping[str, Any]) -> Workload:
    """A job's workload, with the loss and the metrics that the job names.

    Args:
        learnt: what was learnt from the data.

    Raises:
        As `load_workload`; UsageError where the job says what the workload does not leave open.
    """
    workload = load_workload(job.workload, job.model, shape, job.inputs)
    leaves_open = isinstance(workload, PlainModel | Classify | Regress)
    leaves_loss_open = leaves_open or isinstance(workload, Segment)
    if (job.loss and not leaves_loss_open) or (job.metrics and not leaves_open):
        own = "metrics" if leaves_loss_open else "a loss and metrics"
        raise UsageError(
            f"{'metrics' if leaves_loss_open else 'loss'}: {job.workload} has {own} of its own: leave it out"
        )
    if job.loss:
        workload.loss = loss_function(job.loss, shape, learnt)
    if job.metrics:
        from dlsys.zoo.measures import Measures  # takes a second to import

        if taken := sorted(job.metrics.keys() & workload.modes.keys()):
            raise UsageError(f"metrics.{taken[0]}: {job.workload} measures it already: give it another name")
        workload.measures = [Measures(job.metrics, shape)]
    if leaves_open and (confusion := of_classes(learnt, {*job.metrics, *workload.modes})):
        workload.measures = [*workload.measures, confusion]
    if "texture" in shape.row and "label" in shape.row:
        workload.measures = [*workload.measures, ShapeBias()]
    return workload


def _checked(
    check: Callable[[Any], Section], options: Mapping[str, Any], model: type[Section], name: str
) -> Section:
    try:
        return check(dict(options))
    except ValidationError as error:
        wrong = explain(error, model, owner=name)
        raise UsageError(
            "\n".join(f"{'.'.join(['model', *map(str, path)])}: {text}" for path, text in wrong)
        ) from error


def _check_arguments(name: str, factory: Callable[..., Any], options: Mapping[str, Any]) -> None:
    try:
        signature = inspect.signature(factory)
    except ValueError:
        return  # written in C, and says nothing about its arguments
    try:
        signature.bind(**options)
    except TypeError as error:
        raise UsageError(f"model: {name}{signature}: {error}") from error
