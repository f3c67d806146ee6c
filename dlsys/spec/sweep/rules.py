"""Rules between the sections of a sweep, and against the job that its trials train."""

from __future__ import annotations

from dlsys.registry import did_you_mean
from dlsys.spec.metrics import best, metric_exists
from dlsys.spec.rules import Found, Rules
from dlsys.spec.section import show
from dlsys.spec.sweep import space, trials
from dlsys.spec.sweep.sweep import PBT, Grid, Halving, Sweep
from dlsys.spec.sweep.trials import Base, Facts

_THE_SWEEPS_OWN = ("kind", "name", "tracking", "notify", "expect")
# What a resumed run may change, as far as it is a matter of degree.
_WHILE_TRAINING = ("optimizer.", "schedule.", "regularize.", "gradient.clip_", "algorithm.")
# Of an agent, what its networks are made of.
_BEFORE_TRAINING = ("algorithm.hidden", "algorithm.activation")

_RULES: Rules[Facts] = Rules()


def check(sweep: Sweep, base: Base | None, broken: set[str]) -> Found:
    """Every broken rule whose sections are sound, as (path, sentence).

    Args:
        sweep: the sweep, its broken sections replaced by harmless ones.
        base: the job; None where it is wrong itself, which leaves out all rules that read it.
        broken: the sections that are wrong.
    """
    tree, wrong = space.parse(sweep.space)
    if "space" not in broken:
        yield from ((("space", *place), text) for place, text in wrong)
    broken = broken | ({"space"} if wrong else set()) | ({"job"} if base is None else set())
    # A rule that reads no job gets none: "job" stands among the sections of all others.
    facts = Facts(sweep, base, tree)  # type: ignore[arg-type]
    yield from _RULES.check(facts, broken)


def resolve(sweep: Sweep, base: Base) -> Sweep:
    """The sweep with the defaults that depend on other fields and on the job filled in."""
    tree, _ = space.parse(sweep.space)
    return sweep.model_copy(
        update={
            "mode": sweep.mode or best(base.job, sweep.metric),
            "space": space.dump(tree),
            "tracking": base.job.tracking,
            "notify": sweep.notify or base.job.notify,
        }
    )


@_RULES.on("metric", "job")
def _metric_is_of_validation(facts: Facts) -> Found:
    metric = facts.sweep.metric
    split, _, name = metric.partition("/")
    reasons = {
        "train": "the sweep would choose by the data that its trials train on",
        "test": "the test set is touched once, by the best trial, at the end",
    }
    if split in reasons and name:
        yield ("metric",), f"must be of the validation set, not {show(metric)}: {reasons[split]}"
    else:
        yield from metric_exists(facts.base.job, ("metric",), metric, ("valid",))


@_RULES.on("metric", "mode", "job")
def _mode_suits_metric(facts: Facts) -> Found:
    sweep, known = facts.sweep, best(facts.base.job, facts.sweep.metric)
    measured = facts.base.job.modes()
    if (
        sweep.mode is None
        and known is None
        and (measured is None or sweep.metric.partition("/")[2] in measured)
    ):
        yield (
            ("mode",),
            f"is required: only you know which {show(sweep.metric)} is the best, say max or min",
        )
    elif sweep.mode and known and sweep.mode != known:
        extreme = {"max": "largest", "min": "smallest"}[known]
        yield ("mode",), f"the {extreme} {show(sweep.metric)} is the best: say {known}, or leave mode out"


@_RULES.on("space", "overrides")
def _each_key_stands_once(facts: Facts) -> Found:
    keys, given = list(facts.tree), list(facts.sweep.overrides)
    for key in keys:
        for other in keys:
            if key != other and _inside(key, other):
                yield ("space", key), f"is a part of {show(other)}, which varies as a whole: keep one"
        for other in given:
            if _inside(other, key):
                yield (
                    ("overrides", other),
                    f"has no effect, for {show(key)} is drawn for every trial: leave it out",
                )


def _inside(key: str, other: str) -> bool:
    return f"{key}.".startswith(f"{other}.")


@_RULES.on("space")
def _keys_are_a_trials_own(facts: Facts) -> Found:
    for key in facts.tree:
        if key.partition(".")[0] in _THE_SWEEPS_OWN:
            yield ("space", key), f"cannot vary: all trials share {', '.join(_THE_SWEEPS_OWN)}"


@_RULES.on("searcher", "scheduler")
def _searcher_suits_scheduler(facts: Facts) -> Found:
    if facts.sweep.searcher.name in ("tpe", "gp") and facts.sweep.scheduler.name == "pbt":
        yield (
            ("searcher", "name"),
            f"{facts.sweep.searcher.name} learns from settings that stay, but pbt changes them in training: "
            "say random or grid",
        )


@_RULES.on("searcher", "space", "points", "trials")
def _trials_suffice(facts: Facts) -> Found:
    sweep, points = facts.sweep, len(facts.sweep.points)
    if isinstance(sweep.searcher, Grid):
        size = space.grid_size(facts.tree, sweep.searcher.per_range)
        if sweep.trials < size + points:
            more = f" and {points} more in points" if points else ""
            needed = f"{size:,} combinations{more}: say at least {size + points:,}"
            if size > 10**12:
                needed = "more combinations than could ever be tried: choose a lower per_range"
            yield ("trials",), f"the grid has {needed}, got {sweep.trials:,}"
    elif sweep.trials < points:
        yield ("trials",), f"points alone has {points}: say at least {points}, got {sweep.trials}"


@_RULES.on("scheduler", "space", "job")
def _halving_suits_job(facts: Facts) -> Found:
    scheduler, stop = facts.sweep.scheduler, facts.base.job.stop
    if not isinstance(scheduler, Halving):
        return
    epochs = scheduler.max.count
    if scheduler.grace.count > epochs:
        yield ("scheduler", "grace"), f"{scheduler.grace} is later than max, {scheduler.max}"
    if stop.epochs != epochs:
        ends = f"after {stop.epochs} epochs" if stop.epochs else "after no number of epochs"
        yield (
            ("scheduler", "max"),
            f"a trial that is never stopped trains to the job's end, which comes {ends}: "
            f"say overrides: {{stop.epochs: {epochs}}}"
            + (f", or max: {stop.epochs} epochs" if stop.epochs else ""),
        )
    for key in facts.tree:
        if _inside(key, "stop"):
            yield ("space", key), f"cannot vary: {scheduler.name} decides how long a trial trains"


@_RULES.on("scheduler", "space", "job")
def _rungs_are_measured(facts: Facts) -> Found:
    scheduler, evaluate = facts.sweep.scheduler, facts.base.job.evaluate
    match scheduler:
        case Halving():
            key, interval = "grace", scheduler.grace
        case PBT():
            key, interval = "every", scheduler.every
        case _:
            return
    if evaluate.unit != "epoch" or interval.count % evaluate.count:
        yield (
            ("scheduler", key),
            f"trials are compared every {interval}, but the job measures every {evaluate}: "
            "say overrides: {evaluate: 1 epoch}",
        )


@_RULES.on("scheduler", "space")
def _mutated_keys_can_change(facts: Facts) -> Found:
    scheduler = facts.sweep.scheduler
    if not isinstance(scheduler, PBT):
        return
    for index, key in enumerate(scheduler.mutate):
        place = ("scheduler", "mutate", index)
        if key not in facts.tree:
            near = did_you_mean(key, facts.tree)
            yield place, f"{show(key)} is no key of the space.{near} Known: {', '.join(facts.tree)}"
        elif not key.startswith(_WHILE_TRAINING) or key.startswith(_BEFORE_TRAINING) or key.endswith(".name"):
            yield (
                place,
                f"{show(key)} cannot change while a trial trains: only numbers of optimizer, schedule, "
                "regularize, gradient and algorithm can",
            )


@_RULES.on("points", "space")
def _points_are_in_space(facts: Facts) -> Found:
    for index, point in enumerate(facts.sweep.points):
        for key, value in point.items():
            if key not in facts.tree:
                near = did_you_mean(key, facts.tree)
                known = ", ".join(facts.tree)
                yield ("points", index, key), f"is no key of the space.{near} Known: {known}"
            elif not space.holds(facts.tree[key], value):
                yield ("points", index, key), f"{show(value)} is not in {facts.tree[key]}"


@_RULES.on("space", "job")
def _rates_have_an_effect(facts: Facts) -> Found:
    peaks = facts.base.job.paced
    if not peaks or {"schedule", "schedule.name"} & facts.tree.keys():
        return
    for key, tree in facts.tree.items():
        for place, below in space.entries(tree):
            section, _, field = ".".join(map(str, (key, *below))).partition(".")
            if section == "optimizer" and field in peaks:
                yield (
                    ("space", key, *place),
                    f"has no effect, for the job's one-cycle schedule sets {field} itself: vary "
                    f"schedule.{peaks[field]}, or say overrides: {{schedule: {{name: constant}}}}",
                )


@_RULES.on("space", "searcher", "seed", "points", "job")
def _trials_are_sound(facts: Facts) -> Found:
    yield from trials.are_sound(facts)
