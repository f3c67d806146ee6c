"""Metrics into MLflow's sqlite store, and what a point costs the training loop."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from side_by_side import Row, compare, report, seconds

from dlsys.paths import RunPaths, new_run_id, write_json
from dlsys.track.spool import Spool
from dlsys.track.store import Store
from dlsys.track.writer import Writer

POINTS, FEW = 10_000, 500


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DLSYS_HOME"] = folder
        store = Store(f"sqlite:///{folder}/mlflow.db")
        experiment = store.experiment("bench")

        def ours() -> float:
            """Seconds a point, from the loop's call to the row in the store."""
            paths = RunPaths.create(new_run_id("bench"))
            record = {"run_id": paths.id, "uri": store.uri, "experiment": "bench", "params": {}}
            write_json(paths.record, {**record, "tags": {"dlsys.run_id": paths.id}})
            writer = Writer(paths, store)

            def work() -> None:
                spool = Spool(paths.spool / "rank-0.jsonl")
                for step in range(POINTS):
                    spool.metrics(step, {"loss": float(step)})
                spool.close()
                assert writer.deliver() == POINTS

            return seconds(work) / POINTS

        def loop() -> float:
            run = store.client.create_run(experiment).info.run_id

            def work() -> None:
                for step in range(FEW):
                    store.client.log_metric(run, "loss", float(step), step=step)

            return seconds(work) / FEW

        rows = [
            compare("one metric, end to end", "log_metric in a loop", ours, loop, goal="<= 0.025", runs=3)
        ]
        rows.append(_caller(Path(folder)))
        report("tracking", rows)


def _caller(folder: Path) -> Row:
    """What the training loop waits for, against 10 µs of busy waiting."""
    number = iter(range(10**9))

    def ours() -> float:
        spool = Spool(folder / f"{next(number)}.jsonl")
        took = seconds(lambda: [spool.metrics(step, {"loss": 1.0}) for step in range(POINTS)])
        spool.close()
        return took / POINTS

    def ten_microseconds() -> float:
        def work() -> None:
            for _ in range(1000):
                until = time.perf_counter() + 1e-5
                while time.perf_counter() < until:
                    pass

        return seconds(work) / 1000

    return compare("one metric, the caller's wait", "10 µs", ours, ten_microseconds, goal="<= 1")


if __name__ == "__main__":
    main()
