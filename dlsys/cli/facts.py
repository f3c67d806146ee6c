"""What a job's model is and costs, for `plan` and `zoo show`: torch is imported only to count anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dlsys.plan.facts import Facts, facts
from dlsys.registry import import_string
from dlsys.spec.train.job import TrainJob

_MEASURE = "dlsys.zoo.measure:measure"


def counted(job: TrainJob, folder: Path) -> Facts:
    """The facts of a job's workload on its data.

    Raises:
        DlsysError: the data or the workload cannot be loaded.
    """

    def measure(job: TrainJob, folder: Path) -> Facts:
        found: Facts = import_string(_MEASURE)(job, folder)
        return found

    return facts(job, folder, measure)


def costs(job: TrainJob, folder: Path) -> dict[str, Any]:
    """What a job's model is, and what one step of it computes and keeps; as `--json` prints it.

    Raises:
        DlsysError: as `counted`.
    """
    found = counted(job, folder)
    rows = None if job.batch_size == "all" else job.batch_size
    told: dict[str, Any] = {
        "job": job.name,
        "workload": job.workload,
        "parameters": found.parameters,
        "row": {
            "flops": found.flops,
            "step_flops": found.step_flops,
            "activation_bytes": found.activation_bytes,
        },
    }
    if rows is not None:
        workers = job.resources.workers
        held = rows * found.activation_bytes // workers // job.gradient.accumulate
        told["step"] = {
            "rows": rows,
            "flops": rows * found.step_flops,
            "workers": workers,
            "activation_bytes_per_worker": held,
        }
    return told


def as_text(told: dict[str, Any]) -> str:
    """`costs` for a person."""
    row = told["row"]
    lines = [
        f"{told['job']}: {told['workload']}, {told['parameters']:,} parameters",
        f"  a row: {row['flops']:,} floating-point operations forward, {row['step_flops']:,} in a step; "
        f"it keeps {row['activation_bytes']:,} bytes for backward (fp32)",
    ]
    if step := told.get("step"):
        lines.append(
            f"  a step: {step['rows']:,} rows, {step['flops']:,} operations; a worker of {step['workers']} "
            f"keeps {step['activation_bytes_per_worker']:,} bytes of its share for backward"
        )
    return "\n".join(lines)
