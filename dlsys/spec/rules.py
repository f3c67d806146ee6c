"""Rules between the sections of a job, and against the facts on the workload's card.

Each rule names the sections it reads, so that it is left out when one of those is already known
to be broken; every other problem of a file is still found in the same pass.
"""

from __future__ import annotations

import ast
import contextlib
import importlib.util
import math
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path as FilePath
from typing import Any

from pydantic import ValidationError

from dlsys.registry import WORKLOADS, did_you_mean
from dlsys.spec import strategy_rules
from dlsys.spec.explain import explain
from dlsys.spec.job import Stop, Store, TrainJob
from dlsys.spec.metrics import card_of, metric_exists
from dlsys.spec.rl import RLStop
from dlsys.spec.schedule import NEEDS_TOTAL
from dlsys.spec.section import show
from dlsys.spec.strategy import DDP, Single
from dlsys.spec.yaml import Path

Found = Iterator[tuple[Path, str]]
_RULES: list[tuple[frozenset[str], Callable[[TrainJob], Found]]] = []


def _rule(*sections: str) -> Callable[[Callable[[TrainJob], Found]], Callable[[TrainJob], Found]]:
    def add(function: Callable[[TrainJob], Found]) -> Callable[[TrainJob], Found]:
        _RULES.append((frozenset(sections), function))
        return function

    return add


def check(job: TrainJob | None, broken: set[str]) -> Found:
    """Every broken rule whose sections are sound, as (path, sentence)."""
    if job is None:
        return
    for sections, function in _RULES:
        if not sections & broken:
            yield from function(job)


def resolve(job: TrainJob) -> TrainJob:
    """The job with the defaults that depend on other fields filled in."""
    update: dict[str, Any] = {}
    if job.strategy is None:
        update["strategy"] = Single(name="single") if job.resources.workers == 1 else DDP(name="ddp")
    if card := card_of(job):
        update["model"] = card.options.model_validate(job.model).model_dump(mode="json")
    return job.model_copy(update=update)


@_rule("resources", "batch_size", "gradient", "strategy")
def _batch_divides(job: TrainJob) -> Found:
    if job.batch_size == "all":
        return
    workers, accumulate = strategy_rules.data_shares(job), job.gradient.accumulate
    parts = workers * accumulate
    if job.batch_size % parts:
        below, above = job.batch_size // parts * parts, -(-job.batch_size // parts) * parts
        near = f"{below} or {above}" if below else str(above)
        who = "worker" if workers == job.resources.workers else "replica"
        shares = f"{workers} {who}{'s' if workers > 1 else ''}"
        if accumulate > 1:
            shares += f" × {accumulate} micro-batches = {parts}"
        yield (
            ("batch_size",),
            f"{job.batch_size} rows cannot be shared equally by {shares}: "
            f"use a multiple of {parts}, such as {near}",
        )


@_rule("strategy", "resources")
def _strategy_suits_workers(job: TrainJob) -> Found:
    yield from strategy_rules.suits_workers(job)


@_rule("strategy", "optimizer", "precision", "expect")
def _strategy_options_fit(job: TrainJob) -> Found:
    yield from strategy_rules.options_fit(job)


@_rule("failure", "resources", "strategy")
def _elastic_suits(job: TrainJob) -> Found:
    elastic, workers = job.failure.elastic, job.resources.workers
    if elastic is None:
        return
    if not elastic.min <= workers <= elastic.max:
        yield (
            ("failure", "elastic"),
            f"resources.workers ({workers}) must be from min ({elastic.min}) to max ({elastic.max})",
        )
    if job.strategy is not None and job.strategy.name == "ps" and job.strategy.mode == "async":
        yield (
            ("failure", "elastic"),
            "an asynchronous parameter server goes on by itself without a dead worker",
        )


@_rule("stop")
def _stop_is_given(job: TrainJob) -> Found:
    yield from stop_is_given(job.stop)


def stop_is_given(stop: Stop | RLStop) -> Found:
    """Whether a run ends for certain."""
    if not (stop.epochs or stop.steps or stop.time or stop.target):
        yield ("stop",), "says no end: give epochs, steps, time or target"
    elif stop.target and not (stop.epochs or stop.steps or stop.time):
        yield ("stop",), "a target may never be met: give epochs, steps or time besides"


@_rule("optimizer", "batch_size")
def _gd_takes_all(job: TrainJob) -> Found:
    if job.optimizer.name == "gd" and job.batch_size != "all":
        yield (
            ("optimizer", "name"),
            "gd takes the gradient of the whole training set: say batch_size: all, or optimizer sgd",
        )


@_rule("optimizer")
def _nesterov_has_momentum(job: TrainJob) -> Found:
    optimizer = job.optimizer
    if getattr(optimizer, "nesterov", False) and (
        not getattr(optimizer, "momentum", 0) or getattr(optimizer, "dampening", 0)
    ):
        yield ("optimizer", "nesterov"), "needs a momentum above 0 and no dampening"


@_rule("schedule", "stop")
def _curve_needs_end(job: TrainJob) -> Found:
    if job.schedule.name in NEEDS_TOTAL and not (job.stop.epochs or job.stop.steps):
        yield (
            ("schedule", "name"),
            f"{job.schedule.name} is drawn over the whole run: give stop.epochs or stop.steps",
        )


@_rule("schedule")
def _piecewise_fits(job: TrainJob) -> Found:
    schedule = job.schedule
    if schedule.name == "piecewise-schedule":
        if len(schedule.factors) != len(schedule.boundaries) + 1:
            yield (
                ("schedule", "factors"),
                f"needs one factor more than boundaries: {len(schedule.boundaries) + 1}, "
                f"got {len(schedule.factors)}",
            )
        if list(schedule.boundaries) != sorted(set(schedule.boundaries)):
            yield ("schedule", "boundaries"), "must rise from one to the next"


@_rule("schedule", "optimizer")
def _rate_below_peak(job: TrainJob) -> Found:
    if job.schedule.name == "cyclical-lr" and job.schedule.max_lr <= job.optimizer.lr:
        yield (
            ("schedule", "max_lr"),
            f"optimizer.lr < max_lr must hold, but got {job.optimizer.lr:g} and {job.schedule.max_lr:g}",
        )


@_rule("gradient", "regularize")
def _one_clip(job: TrainJob) -> Found:
    clips = [r for r in job.regularize if r.name == "gradient-clipping"]
    if clips and job.gradient.clip_norm is not None:
        yield ("gradient", "clip_norm"), "is given twice, also by gradient-clipping: keep one"


@_rule("regularize")
def _no_doubles(job: TrainJob) -> Found:
    names = [r.name for r in job.regularize]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("regularize", index), f"{name} stands twice: keep one"


@_rule("data")
def _splits_leave_rows(job: TrainJob) -> Found:
    valid, test = getattr(job.data, "valid", 0.0), getattr(job.data, "test", 0.0)
    if valid + test >= 1:
        yield (
            ("data", "valid"),
            f"valid + test must leave rows to train on, but got {valid:g} + {test:g}",
        )
    path = getattr(job.data, "path", None)
    if path is not None and (not path or "\0" in path):
        yield ("data", "path"), "must be a path"


@_rule("tracking")
def _experiment_is_plain(job: TrainJob) -> Found:
    yield from experiment_is_plain(job.tracking)


def experiment_is_plain(tracking: Store) -> Found:
    """Whether MLflow takes the experiment's name."""
    name = tracking.experiment
    if not re.fullmatch(r"[\w][\w .:@/+-]{0,199}", name) or ".." in name:
        yield (
            ("tracking", "experiment"),
            f"{show(name)}: up to 200 letters, digits, spaces and . _ - : @ / + only, without '..'",
        )


@_rule("workload")
def _workload_exists(job: TrainJob) -> Found:
    if ":" in job.workload:
        yield from own_code(job.workload, ("workload",))
    elif job.workload not in WORKLOADS:
        yield ("workload",), WORKLOADS.unknown(job.workload) + ", or your own package.module:Class"


@_rule("workload", "model")
def _options_suit_workload(job: TrainJob) -> Found:
    if card := card_of(job):
        try:
            card.options.model_validate(job.model)
        except ValidationError as error:
            for path, text in explain(error, card.options, owner=job.workload):
                yield ("model", *path), text


def own_code(target: str, path: Path) -> Found:
    """Looks for `module:attribute` without running it: a user's file would import torch."""
    module, _, attribute = target.partition(":")
    if not all(part.isidentifier() for part in module.split(".")) or not attribute.isidentifier():
        yield path, f"{show(target)} is not package.module:Class or module:function"
        return
    source = find_source(module)
    if source is None:
        yield (
            path,
            (
                f"no module {show(module)} in {os.getcwd()} or among the installed packages: "
                "run dlsys in the folder that holds it"
            ),
        )
        return
    if source.suffix != ".py":
        return
    try:
        tree = ast.parse(source.read_bytes())
    except (SyntaxError, ValueError, OSError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        yield path, f"{source}{line}: cannot be read: {error}"
        return
    names = set(_top_level_names(tree))
    if attribute not in names and "*" not in names:
        near = did_you_mean(attribute, names)
        yield path, f"{source} defines no {attribute!r}.{near}"


def find_source(module: str) -> FilePath | None:
    """The file of a module, searched in the working directory first; imports nothing of it."""
    first, *rest = module.split(".")
    try:
        # Of a top-level name this imports nothing, and it knows editable installs.
        spec = importlib.util.find_spec(first)
    except (ImportError, ValueError):  # ValueError: __main__
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for base in [FilePath(root, first) for root in (os.getcwd(), *sys.path)] + [*map(FilePath, folders)]:
        for candidate in (base.joinpath(*rest).with_suffix(".py"), base.joinpath(*rest, "__init__.py")):
            with contextlib.suppress(OSError):  # a name too long for a file
                if candidate.is_file():
                    return candidate
    return FilePath(spec.origin) if spec and spec.origin and not rest else None


def _top_level_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Import | ast.ImportFrom):
            for alias in node.names:
                yield (alias.asname or alias.name).split(".")[0]


@_rule("workload", "data")
def _data_suits_workload(job: TrainJob) -> Found:
    card = card_of(job)
    if card and job.data.source not in card.sources:
        yield (
            ("data", "source"),
            f"{job.workload} cannot train on {job.data.source}; it takes: {', '.join(card.sources)}",
        )


@_rule("workload", "strategy", "resources")
def _strategy_suits_workload(job: TrainJob) -> Found:
    yield from strategy_rules.suits_workload(job, card_of(job))


@_rule("workload", "strategy", "resources", "model")
def _layers_are_cut_evenly(job: TrainJob) -> Found:
    with contextlib.suppress(ValidationError):  # another rule tells what is wrong with the options
        yield from strategy_rules.cuts_evenly(job, card_of(job))


@_rule("workload", "expect")
def _expected_metrics_exist(job: TrainJob) -> Found:
    for name in job.expect:
        yield from metric_exists(job, ("expect", name), name, ("train", "valid", "test"))


@_rule("workload", "stop")
def _target_metrics_exist(job: TrainJob) -> Found:
    for name in job.stop.target:
        yield from metric_exists(job, ("stop", "target", name), name, ("train", "valid"))


@_rule("workload", "checkpoint")
def _best_metric_exists(job: TrainJob) -> Found:
    if job.checkpoint.best is not None:
        yield from metric_exists(job, ("checkpoint", "best"), job.checkpoint.best, ("train", "valid"))


@_rule("workload", "schedule")
def _watched_metric_exists(job: TrainJob) -> Found:
    if job.schedule.name == "performance-schedule":
        yield from metric_exists(job, ("schedule", "metric"), job.schedule.metric, ("train", "valid"))


@_rule("regularize", "workload")
def _dropout_has_layers(job: TrainJob) -> Found:
    card = card_of(job)
    for index, regularizer in enumerate(job.regularize):
        if card and regularizer.name in ("dropout", "mc-dropout") and not card.has_dropout:
            yield ("regularize", index), f"{job.workload} has no dropout layer to set"


def total_steps(job: TrainJob, steps_per_epoch: int) -> float:
    """Optimizer updates until `stop` ends the run at the latest; infinity without a bound."""
    by_epochs = job.stop.epochs * steps_per_epoch if job.stop.epochs else math.inf
    return min(by_epochs, job.stop.steps or math.inf)
