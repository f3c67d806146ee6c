"""`runs`: what MLflow remembers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from dlsys.cli.options import Uri
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import report, table
from dlsys.cli.watch import watch
from dlsys.errors import DlsysError, RunError, UsageError
from dlsys.track.runs import listed, one_of, row_of

app = typer.Typer(help="Look at runs.", no_args_is_help=True)

# For what came of a run, in a line of the list.
_ROOM = 60


@app.command("list")
def list_runs(
    as_json: AsJson = False,
    uri: Uri = None,
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
) -> None:
    """List the newest runs."""
    rows = [row_of(run) for run in listed(uri, limit)]
    if as_json:
        give(rows)
        return
    if not rows:
        print("no runs yet: dlsys run quickstart")
        return
    columns = [[row["run"], row["status"], row["workload"], row["started"], _result(row)] for row in rows]
    titles = ["RUN", "STATUS", "WORKLOAD", "STARTED", "RESULT"]
    print(table(titles, columns))


def _result(row: dict[str, Any]) -> str:
    """The figures that a listing has room for: the test's, or else validation's."""
    metrics = row["metrics"]
    split = "test/" if any(name.startswith("test/") for name in metrics) else "valid/"
    if row["kind"] == "script":
        split = ""  # it calls its figures as it likes
    shown = [f"{name}={value:.4g}" for name, value in sorted(metrics.items()) if name.startswith(split)]
    said = " ".join(shown) or row["cause"] or ""
    return said if len(said) <= _ROOM else f"{said[: _ROOM - 1]}…"


@app.command()
def show(
    run: Annotated[str, typer.Argument(help="The beginning of a run's id, dlsys's or MLflow's.")],
    as_json: AsJson = False,
    uri: Uri = None,
) -> None:
    """Show one run: status, cost, parameters, last metrics, where its workers were and its files are."""
    from dlsys.jobs import cost
    from dlsys.paths import RunPaths
    from dlsys.plan.cost import line

    found = one_of(listed(uri, 1000, run), run)
    row = {**row_of(found), "params": dict(found.data.params), "tags": dict(found.data.tags)}
    row |= {"folder": None, "places": []}  # made elsewhere
    row["cost"] = cost.from_metrics(row["metrics"], row["tags"].get("dlsys.currency", ""))
    with suppress(UsageError):
        paths = RunPaths.find(row["run"])
        row |= {"folder": str(paths.root), "places": cost.attempts(paths)}
        row["cost"] = cost.described(paths) or row["cost"]
    if as_json:
        give(row)
        return
    for name in ("run", "mlflow_run", "status", "cause", "workload", "started", "seconds", "folder"):
        if row.get(name) is not None:
            print(f"{name:12} {row[name]}")
    if row["cost"]:
        print(f"{'cost':12} {line(row['cost'])}")
    for attempt in row["places"][-1:]:
        print("places")
        for worker in attempt["workers"]:
            node = attempt["nodes"][worker["node"]]
            print(f"  {'rank ' + str(worker['rank']):36} {node['name']} ({node['address']})")
    print("metrics")
    for name, value in sorted(row["metrics"].items()):
        print(f"  {name:36} {value:.6g}")
    print("parameters")
    for name, value in sorted(row["params"].items()):
        print(f"  {name:36} {value}")


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="The beginning of a run's id.")],
    target: Annotated[
        Path, typer.Argument(metavar="FILE", help="weights.safetensors, weights.pt, or policy.pt2.")
    ],
    best: Annotated[bool, typer.Option("--best", help="The best checkpoint in place of the last.")] = False,
) -> None:
    """Write a run's weights to one file: plain tensors by parameter name, whatever the strategy.

    FILE.pt2 is what an agent does, with its weights: torch.export.load("FILE.pt2").module() takes a batch of
    observations and gives actions.
    """
    from dlsys.paths import RunPaths

    if target.suffix not in (".safetensors", ".pt", ".pt2"):
        raise UsageError(f"{target}: say FILE.safetensors, FILE.pt for torch.load, or FILE.pt2 for an agent")
    paths = RunPaths.find(run)
    if target.suffix == ".pt2":
        from dlsys.jobs.moved import folder_of
        from dlsys.rl.export import export as write_policy
        from dlsys.spec.load import load

        job = load(paths.spec, folder=folder_of(paths)).agent
        if job is None:
            raise UsageError(f"{target}: {paths.id} trains no agent: say FILE.safetensors or FILE.pt")
        step, count = write_policy(job, paths.checkpoints, target, best=best)
    else:
        from dlsys.train.checkpoint.export import export as write

        step, count = write(paths.checkpoints, target, best=best)
    print(f"{target}: {count:,} numbers of step {step}")


@app.command()
def sync(
    run: Annotated[str | None, typer.Argument(help="One run; by default all that are not delivered.")] = None,
) -> None:
    """Deliver what MLflow, or a run's object store, could not take before."""
    from dlsys.jobs.mirror.node import Mirror
    from dlsys.jobs.moved import settle
    from dlsys.paths import RunPaths, read_json
    from dlsys.processes import alive
    from dlsys.track.writer import delivered
    from dlsys.track.writer import sync as deliver

    code = 0
    found = RunPaths.find(run) if run else None
    # A trial is its sweep's to deliver.
    for paths in [found.sweep or found] if found else RunPaths.all():
        writer = (read_json(paths.owner) or {}).get("writer")
        if run is None and delivered(paths):
            continue
        if writer and alive(int(writer[0]), writer[1]):
            reason = (read_json(paths.refusal) or {}).get("reason", "")
            print(f"{paths.id}: its own writer is at work{f', and told: {reason}' if reason else ''}")
            continue
        settle(paths)
        mirror = Mirror.of(paths)
        try:
            mirror.exchange()
            if unsent := mirror.end(float("inf")):
                raise RunError(unsent)
            print(f"{paths.id}: {deliver(paths)} points delivered")
        except DlsysError as error:
            code = error.exit_code
            report(RunError(f"{paths.id}: {error}", hint=error.hint))
    if code:
        raise typer.Exit(code)


app.command()(watch)
