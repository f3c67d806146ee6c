"""`dlsys`: puts the verbs together, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

import typer

from dlsys import __version__
from dlsys.cli import (
    agents,
    cluster,
    data,
    doctor,
    files,
    init,
    jobs,
    plan,
    prove,
    run,
    runs,
    submit,
    sweep,
    ui,
    verify,
    zoo,
)
from dlsys.cli.report import report
from dlsys.errors import DlsysError

app = typer.Typer(
    name="dlsys",
    help="Distributed training on Ray from one file, tracked in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("init")(init.init)
app.command("check")(files.check)
app.command("show")(files.show)
app.command("schema")(files.schema)
app.command("plan")(plan.plan)
app.command("prove")(prove.prove)
app.command("verify")(verify.verify)
app.command("submit")(submit.submit)
app.add_typer(jobs.app, name="jobs")
app.add_typer(cluster.app, name="cluster")
app.add_typer(runs.app, name="runs")
app.add_typer(agents.app, name="agents")
app.add_typer(sweep.app, name="sweep")
app.add_typer(zoo.app, name="zoo")
app.add_typer(data.app, name="data")
app.command("ui")(ui.ui)
app.command("doctor")(doctor.doctor)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def main() -> None:
    """The console script."""
    try:
        app()
    except DlsysError as error:
        report(error)
        sys.stdout.flush()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit as ended:
        if ended.code in (130, 143):
            # A library that a signal stopped in the middle of its start may crash when the interpreter ends.
            for stream in (sys.stdout, sys.stderr):
                with suppress(OSError):
                    stream.flush()
            os._exit(int(ended.code))
        raise
    except BrokenPipeError:
        # `dlsys runs list | head`: the reader has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)


if __name__ == "__main__":
    main()
