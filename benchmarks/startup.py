"""How long the light verbs take, against a bare interpreter that imports their own base."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from side_by_side import compare, report, seconds

JOB = Path(__file__).parent.parent / "jobs" / "quickstart.yaml"


def command(*arguments: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, *arguments], check=True, capture_output=True))


def main() -> None:
    def typer() -> float:
        return command("-c", "import typer")

    cli = ("-m", "dlsys.cli.main")
    report(
        "startup",
        [
            compare("dlsys --help", "import typer", lambda: command(*cli, "--help"), typer, goal="<= 3"),
            compare(
                "dlsys check FILE",
                "import torch",
                lambda: command(*cli, "check", str(JOB)),
                lambda: command("-c", "import torch"),
                goal="<= 0.5",
            ),
        ],
    )


if __name__ == "__main__":
    main()
