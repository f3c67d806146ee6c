"""Rules between the sections of a job, and against the facts on the workload's card."""

from __future__ import annotations

import contextlib
import math
from typing import Any

from pydantic import ValidationError

from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.data import OwnSource
from dlsys.spec.data.fit import misfit
from dlsys.spec.explain import explain
from dlsys.spec.libraries import architecture, missing
from dlsys.spec.metrics import metric_exists
from dlsys.spec.names import wrong_name
from dlsys.spec.own_code import misnamed_options, own_code
from dlsys.spec.rules import Found, Rules, experiment_is_plain, init_is_one, stop_is_given
from dlsys.spec.section import show
from dlsys.spec.train import data_rules, solved_rules, strategy_rules
from dlsys.spec.train.average import SWA
from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.objective import FOR_CLASSES, FOR_PIXELS, FOR_TARGETS, CrossEntropy, OwnLoss
from dlsys.spec.train.regularizer import DataAugmentation
from dlsys.spec.train.schedule import NEEDS_TOTAL
from dlsys.spec.train.strategy import usual

_RULES: Rules[TrainJob] = Rules()
check = _RULES.check


def resolve(job: TrainJob) -> TrainJob:
    """The job with the defaults that depend on other fields filled in."""
    update: dict[str, Any] = {}
    if job.strategy is None:
        update["strategy"] = usual(job.resources.workers)
    if card := job.card:
        update["model"] = card.options_of(job.model).model_dump(mode="json")
    return job.model_copy(update=update)


@_RULES.on("resources", "batch_size", "gradient", "strategy")
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


@_RULES.on("strategy", "data")
def _strategy_suits_lengths(job: TrainJob) -> Found:
    if job.data.ragged and job.strategy and job.strategy.name in ("pipeline", "tensor"):
        yield (
            ("data", job.data.ragged),
            f"makes batches of several lengths, and under {job.strategy.name} workers hand each other parts "
            "of one length: pad all rows to it, or say strategy ddp or fsdp",
        )


@_RULES.on("strategy", "resources")
def _strategy_suits_workers(job: TrainJob) -> Found:
    yield from strategy_rules.suits_workers(job)


@_RULES.on("strategy", "optimizer", "precision", "expect")
def _strategy_options_fit(job: TrainJob) -> Found:
    yield from strategy_rules.options_fit(job)


@_RULES.on("compile", "activation_checkpointing", "average", "optimizer", "strategy", "resources")
def _strategy_serves(job: TrainJob) -> Found:
    yield from strategy_rules.serves(job)


@_RULES.on("failure", "resources", "strategy")
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


@_RULES.on("stop")
def _stop_is_given(job: TrainJob) -> Found:
    yield from stop_is_given(job.stop)


@_RULES.on("init")
def _init_is_one(job: TrainJob) -> Found:
    if job.init and job.init.layers and not (job.init.run or job.init.file):
        for option in ("rename", "leave"):
            if getattr(job.init, option):
                yield ("init", option), "is of a run or a file, and none is named: leave it out"
        return
    yield from init_is_one(job.init)


@_RULES.on("average", "stop")
def _an_average_begins(job: TrainJob) -> Found:
    if not isinstance(job.average, SWA):
        return
    after = job.average.after
    end = job.stop.epochs if after.unit == "epoch" else job.stop.steps
    if end is not None and after.count >= end:
        yield ("average", "after"), f"{after} is not before the end, stop.{after.unit}s ({end})"


@_RULES.on("regularize", "loss", "data")
def _what_is_mixed_can_be_learnt(job: TrainJob) -> Found:
    plain = job.loss is None or (isinstance(job.loss, CrossEntropy) and job.loss.class_weights is None)
    if not isinstance(job.data, OwnSource) and "clip" in job.data.gives.fields:
        problem = "mixes images with classes, and these are clips: leave it out"
    elif plain:
        return
    else:
        problem = (
            "gives rows shares of two classes, which cross-entropy without class_weights learns: leave it "
            "out, or change loss"
        )
    for place, regularizer in enumerate(job.regularize):
        if isinstance(regularizer, DataAugmentation):
            for name in ("mixup", "cutmix"):
                if getattr(regularizer, name):
                    yield ("regularize", place, name), problem


@_RULES.on("optimizer", "batch_size")
def _gd_takes_all(job: TrainJob) -> Found:
    if job.optimizer.name == "gd" and job.batch_size != "all":
        yield (
            ("optimizer", "name"),
            "gd takes the gradient of the whole training set: say batch_size: all, or optimizer sgd",
        )


@_RULES.on("optimizer")
def _nesterov_has_momentum(job: TrainJob) -> Found:
    optimizer = job.optimizer
    if getattr(optimizer, "nesterov", False) and (
        not getattr(optimizer, "momentum", 0) or getattr(optimizer, "dampening", 0)
    ):
        yield ("optimizer", "nesterov"), "needs a momentum above 0 and no dampening"


@_RULES.on("schedule", "stop")
def _curve_needs_end(job: TrainJob) -> Found:
    if job.schedule.name in NEEDS_TOTAL and not (job.stop.epochs or job.stop.steps):
        yield (
            ("schedule", "name"),
            f"{job.schedule.name} is drawn over the whole run: give stop.epochs or stop.steps",
        )


@_RULES.on("schedule")
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


@_RULES.on("schedule", "optimizer")
def _rate_below_peak(job: TrainJob) -> Found:
    if job.schedule.name == "cyclical-lr" and job.schedule.max_lr <= job.optimizer.lr:
        yield (
            ("schedule", "max_lr"),
            f"optimizer.lr < max_lr must hold, but got {job.optimizer.lr:g} and {job.schedule.max_lr:g}",
        )


@_RULES.on("gradient", "regularize")
def _one_clip(job: TrainJob) -> Found:
    clips = [r for r in job.regularize if r.name == "gradient-clipping"]
    if clips and job.gradient.clip_norm is not None:
        yield ("gradient", "clip_norm"), "is given twice, also by gradient-clipping: keep one"


@_RULES.on("regularize", "data")
def _own_transforms_exist(job: TrainJob) -> Found:
    for path, name in job.code.items():
        if path[0] == "regularize":
            yield from own_code(name, path)
            if job.data.prefetch and not job.data.workers:
                yield (
                    ("data", "prefetch"),
                    "transforms draw from torch's own generator, as dropout does, so no thread may make "
                    "batches beside training: leave it out, or say data.workers, which are processes",
                )


@_RULES.on("data")
def _data_is_sound(job: TrainJob) -> Found:
    yield from data_rules.sound(job)


@_RULES.on("regularize")
def _no_doubles(job: TrainJob) -> Found:
    names = [r.name for r in job.regularize]
    for index, name in enumerate(names):
        if name in names[:index]:
            yield ("regularize", index), f"{name} stands twice: keep one"


@_RULES.on("tracking")
def _experiment_is_plain(job: TrainJob) -> Found:
    yield from experiment_is_plain(job.tracking)


@_RULES.on("workload")
def _workload_exists(job: TrainJob) -> Found:
    if ":" in job.workload:
        yield from own_code(job.workload, ("workload",))
    elif of := architecture(job.workload):
        if wrong := missing(of.library):
            yield ("workload",), wrong
    elif job.workload not in WORKLOADS:
        yield ("workload",), WORKLOADS.unknown(job.workload) + ", or your own package.module:Class"


@_RULES.on("workload", "model")
def _options_suit_workload(job: TrainJob) -> Found:
    if card := job.card:
        if wrong := card.wrong_preset(job.model):
            yield ("model", "preset"), wrong
            return
        try:
            library = card.library(card.options_of(job.model))
        except ValidationError as error:
            for path, text in explain(error, card.options, owner=job.workload):
                yield ("model", *path), text
        else:
            if library and (wrong := missing(library)):
                yield ("workload",), f"{job.workload} {wrong}"


@_RULES.on("loss")
def _own_loss_exists(job: TrainJob) -> Found:
    if isinstance(job.loss, OwnLoss):
        yield from own_code(job.loss.name, ("loss", "name"))


@_RULES.on("hooks")
def _hooks_exist(job: TrainJob) -> Found:
    for index, (place, options) in enumerate(job.own_hooks):
        wrong = list(own_code(place, ("hooks", index)))
        yield from wrong or misnamed_options(place, options, (), ("hooks", index))
        if [known for known, _ in job.own_hooks].index(place) < index:
            yield ("hooks", index), f"{place} stands twice: keep one"


@_RULES.on("workload", "inputs", "loss", "metrics")
def _workload_leaves_open_what_is_said(job: TrainJob) -> Found:
    if (card := job.card) is None:
        return
    if job.inputs:
        yield ("inputs",), f"{job.workload} knows its inputs: leave it out"
    fits = {"classify": FOR_CLASSES, "regress": FOR_TARGETS, "segment": FOR_PIXELS}.get(card.task.name)
    own = "a loss and metrics" if fits is None else "metrics"
    for key, said, is_open in (
        ("loss", job.loss, fits),
        ("metrics", job.metrics, fits not in (None, FOR_PIXELS)),
    ):
        if said and not is_open:
            yield (key,), f"{job.workload} has {own} of its own: leave it out"
    if job.loss and fits and not isinstance(job.loss, OwnLoss) and job.loss.name not in fits:
        yield ("loss", "name"), f"{job.workload} learns by {' or '.join(fits)}, got {job.loss.name!r}"


@_RULES.on("metrics")
def _metrics_are_named(job: TrainJob) -> Found:
    for name, told in job.metrics.items():
        if wrong := wrong_name(f"valid/{name}"):
            yield ("metrics", name), wrong
        elif name == "loss" or ":" in name:
            yield ("metrics", name), "is taken: give it another name"
        if isinstance(told, dict) and not isinstance(told.get("name"), str):
            yield ("metrics", name), f"names no class of torchmetrics: {{name: F1Score}}, got {show(told)}"


@_RULES.on("workload", "data")
def _data_suits_workload(job: TrainJob) -> Found:
    if (card := job.card) and (wrong := misfit(job.data, card.rows, job.workload)):
        yield ("data", "source"), wrong


@_RULES.on("workload", "strategy", "resources")
def _strategy_suits_workload(job: TrainJob) -> Found:
    yield from strategy_rules.suits_workload(job, job.card)


@_RULES.on("workload", *solved_rules.SECTIONS)
def _what_is_solved_has_no_gradient(job: TrainJob) -> Found:
    if job.card and "solved" in job.card.traits:
        yield from solved_rules.leaves_out(job)


@_RULES.on("workload", "strategy", "resources", "model")
def _layers_are_cut_evenly(job: TrainJob) -> Found:
    with contextlib.suppress(ValidationError):  # another rule tells what is wrong with the options
        yield from strategy_rules.cuts_evenly(job, job.card)


@_RULES.on("workload", "expect")
def _expected_metrics_exist(job: TrainJob) -> Found:
    for name in job.expect:
        yield from metric_exists(job, ("expect", name), name, ("train", "valid", "test"))


@_RULES.on("workload", "stop")
def _target_metrics_exist(job: TrainJob) -> Found:
    for name in job.stop.target:
        yield from metric_exists(job, ("stop", "target", name), name, ("train", "valid"))


@_RULES.on("workload", "checkpoint")
def _best_metric_exists(job: TrainJob) -> Found:
    if job.checkpoint.best is not None:
        yield from metric_exists(job, ("checkpoint", "best"), job.checkpoint.best, ("train", "valid"))


@_RULES.on("workload", "schedule")
def _watched_metric_exists(job: TrainJob) -> Found:
    if job.schedule.name == "performance-schedule":
        yield from metric_exists(job, ("schedule", "metric"), job.schedule.metric, ("train", "valid"))


@_RULES.on("regularize", "workload")
def _dropout_has_layers(job: TrainJob) -> Found:
    card = job.card
    for index, regularizer in enumerate(job.regularize):
        if card and regularizer.name in ("dropout", "mc-dropout") and "dropout" not in card.traits:
            yield ("regularize", index), f"{job.workload} has no dropout layer to set"


def total_steps(job: TrainJob, steps_per_epoch: int) -> float:
    """Optimizer updates until `stop` ends the run at the latest; infinity without a bound."""
    by_epochs = job.stop.epochs * steps_per_epoch if job.stop.epochs else math.inf
    return min(by_epochs, job.stop.steps or math.inf)
