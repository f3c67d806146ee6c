"""`plan`: what a sweep will cost, before it runs."""

from __future__ import annotations

import dataclasses
import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dlsys.cli.files import File, Overrides
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import table
from dlsys.errors import UsageError
from dlsys.spec.ready import find

if TYPE_CHECKING:
    from dlsys.plan.compare import Costs
    from dlsys.spec import LoadedSweep
    from dlsys.spec.cluster.providers import Cluster
    from dlsys.spec.train.job import Resources


def plan(
    file: File,
    overrides: Overrides = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="How many trials train at a time; by default the file's concurrent, or as many as fit the "
            "cluster or this machine's cores.",
        ),
    ] = None,
    seconds_per_epoch: Annotated[
        float | None,
        typer.Option(min=1e-6, help="What an epoch takes on average; by default what --curves says, or 1."),
    ] = None,
    curves: Annotated[
        Path | None,
        typer.Option(metavar="LEDGER", help="An earlier sweep's ledger; by default curves are made up."),
    ] = None,
    within: Annotated[
        float, typer.Option(min=0, help="The target: this much worse than the best trial, in the metric.")
    ] = 0.01,
    price_per_hour: Annotated[
        float | None, typer.Option(min=0, help="Of what trains one trial; it is paid while it idles.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(metavar="FILE|NAME", help="A cluster, whose file says what it costs and what it holds."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Simulate a sweep: trials at each rung, time and cost; and other schedulers on the same curves.

    Of a training job, count what its model is and what a step of it computes and keeps.
    """
    from dlsys.cli.facts import as_text, costs
    from dlsys.plan import compare
    from dlsys.plan.curves import recorded
    from dlsys.plan.rates import price_of, room
    from dlsys.spec import Loaded, LoadedSweep, load_any
    from dlsys.spec.sweep import space

    loaded = load_any(find(file), overrides or ())
    if isinstance(loaded, Loaded) and loaded.spec.kind == "train":
        counted = costs(loaded.training, loaded.folder)
        give(counted) if as_json else print(as_text(counted))
        return
    if not isinstance(loaded, LoadedSweep):
        raise UsageError(
            f"{file}: is a kind: {loaded.spec.kind} file, and there are plans only for sweeps and training",
            hint="Give a sweep: dlsys plan tune/lenet5_asha",
        )
    currency = ""
    if cluster is not None:
        on, resources = _cluster(cluster), _size(loaded)
        if price_per_hour is None:
            price_per_hour, currency = price_of(on, resources), on.currency
        if workers is None and loaded.sweep.concurrent == "auto":
            workers = room(on, resources) or None  # where the file says no sizes
    workers = workers or _workers(loaded)
    known = recorded(curves) if curves else None
    found = compare.plan(loaded, workers, within=within, curves=known, seconds=seconds_per_epoch)
    rows = [
        dataclasses.asdict(costs)
        | ({} if price_per_hour is None else {"cost": _cost(costs, workers, price_per_hour)})
        for costs in (found.own, *found.others)
    ]
    said = {
        "sweep": loaded.sweep.name,
        "trials": loaded.sweep.trials,
        "settings": space.size(space.parse(loaded.sweep.space)[0]),
        "workers": workers,
        "curves": str(curves) if curves else None,
        "target": found.target,
        "currency": currency,
        "own": rows[0],
        "others": rows[1:],
    }
    give(said) if as_json else print(_text(said))


def _cluster(name: str) -> Cluster:
    """The cluster of this name that is up, or that of a file."""
    from dlsys.cluster.places import ClusterPaths
    from dlsys.spec.load import load_cluster

    up = {paths.name: paths.source for paths in ClusterPaths.all()}
    return load_cluster(up.get(name) or find(name)).cluster


def _workers(loaded: LoadedSweep) -> int:
    """How many trials of a sweep train at a time where nobody says."""
    if loaded.sweep.concurrent != "auto":
        return int(loaded.sweep.concurrent)
    resources = _size(loaded)
    return max(1, int((os.cpu_count() or 1) // (resources.workers * resources.cpus)))


def _size(loaded: LoadedSweep) -> Resources:
    """What a trial takes; an agent's processes count as workers."""
    from dlsys.spec.train.job import Resources

    needs = loaded.job.job.resources
    if isinstance(needs, Resources):
        return needs
    return Resources(workers=len(needs.bundles), cpus=needs.cpus, gpus=needs.gpus)


def _cost(costs: Costs, workers: int, price: float) -> float:
    return round(workers * costs.seconds / 3600 * price, 2)


def _text(said: dict[str, Any]) -> str:
    curves = f"the curves of {said['curves']}" if said["curves"] else "made-up curves"
    own, others = said["own"], said["others"]
    head = f"{said['sweep']}: {said['trials']:,} trials, {said['workers']} at a time, on {curves}"
    if said["settings"] is not None and said["settings"] < said["trials"]:
        head += f"\nthe space has {said['settings']:,} settings: no more trials than that are made"
    rungs = [[f"{epoch}", f"{trials:,}"] for epoch, trials in own["rungs"].items()]
    titles = ["SCHEDULER", "EPOCHS", "WALL TIME", f"TO {said['target']:.4g}", "BEST", "IDLE"]
    titles += [f"COST {said['currency']}".strip()] if "cost" in own else []
    names = {"fifo": "fifo (random search)"}
    lines = [_line(f"{own['scheduler']} (this file)", own)]
    lines += [
        _line(names.get(row["scheduler"], row["scheduler"]), row)
        for row in others
        if row["scheduler"] != own["scheduler"]
    ]
    return f"{head}\n\n{table(['EPOCH', 'TRIALS'], rungs)}\n\n{table(titles, lines)}"


def _line(name: str, row: dict[str, Any]) -> list[str]:
    return [
        name,
        f"{row['epochs']:,}",
        _time(row["seconds"]),
        "never" if row["to_target"] is None else _time(row["to_target"]),
        "none" if row["best"] is None else f"{row['best']:.4g}",
        f"{row['idle']:.0%}",
        *([f"{row['cost']:,.2f}"] if "cost" in row else []),
    ]


def _time(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
