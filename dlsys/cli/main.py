"""`dlsys`: puts the verbs together, and turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys

import typer

from dlsys import __version__
from dlsys.cli import files, run, runs, ui, zoo
from dlsys.errors import DlsysError, SpecError, WorkloadError

app = typer.Typer(
    name="dlsys",
    help="Distributed training on Ray from one file, tracked in MLflow.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("run")(run.run)
app.command("check")(files.check)
app.command("show")(files.show)
app.command("schema")(files.schema)
app.add_typer(runs.app, name="runs")
app.add_typer(zoo.app, name="zoo")
app.command("ui")(ui.ui)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


def report(error: DlsysError) -> None:
    """Says on stderr what is wrong, and how to mend it."""
    if isinstance(error, WorkloadError) and error.traceback:
        print(error.traceback.rstrip(), file=sys.stderr)
    if isinstance(error, SpecError):
        print(error, file=sys.stderr)
        return
    print(f"dlsys: {error}", file=sys.stderr)
    for line in getattr(error, "__notes__", ()):
        print(line.rstrip(), file=sys.stderr)
    if error.hint:
        print(f"       {error.hint}", file=sys.stderr)


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
    except BrokenPipeError:
        # `dlsys runs list | head`: the reader has what it wanted.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)


if __name__ == "__main__":
    main()
