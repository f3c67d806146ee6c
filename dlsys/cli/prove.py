"""`prove`: show that a job meets what it expects, and beats its baseline."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from dlsys.cli import files
from dlsys.cli.output import AsJson, give
from dlsys.cli.report import table
from dlsys.errors import ExpectationError
from dlsys.spec.ready import find

if TYPE_CHECKING:
    from dlsys.jobs.prove import Proof
    from dlsys.spec.rl.job import Job


def prove(
    file: files.File,
    overrides: files.Overrides = None,
    address: Annotated[
        str | None, typer.Option(help="A running Ray cluster; by default RAY_ADDRESS, or a Ray of its own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train a job and its baseline, and compare them (exit code 1 if the job falls short)."""
    from dlsys.jobs import prove as proofs

    address = address or os.environ.get("RAY_ADDRESS") or None
    loaded, other = proofs.load_both(find(file), overrides or [])
    proof = proofs.prove(loaded, other, address=address, note=lambda text: print(text, file=sys.stderr))
    if as_json:
        give(asdict(proof))
    else:
        print(table(["METRIC", "RESULT", "EXPECTED", "BASELINE", "BETTER BY"], _rows(loaded.job, proof)))
    print(f"Look it up:   dlsys runs show {proof.run}", file=sys.stderr)
    if proof.missed:
        raise ExpectationError("; ".join(proof.missed))


def _rows(job: Job, proof: Proof) -> list[list[str]]:
    assert proof.job is not None, "it has trained"
    others = proof.baseline.metrics if proof.baseline else {}
    diverged = proof.baseline is not None and proof.baseline.diverged
    names = [*job.expect, *(name for name in proof.better if name not in job.expect)]

    def figure(value: float | None) -> str:
        return "" if value is None else f"{value:.4g}"

    return [
        [
            name,
            figure(proof.job.metrics.get(name)),
            str(job.expect.get(name, "")),
            "diverged" if diverged else figure(others.get(name)),
            figure(proof.better.get(name)),
        ]
        for name in names
    ]
