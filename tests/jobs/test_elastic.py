"""`failure.elastic`: a job with another number of workers is the same job."""

from __future__ import annotations

from typing import Any, get_args

import pytest

from dlsys.jobs.elastic import choices, most, with_workers
from dlsys.spec.train.job import TrainJob
from dlsys.spec.train.strategy import Strategy

# Each with options that are not the defaults.
STRATEGIES: dict[str, list[dict[str, Any]]] = {
    "single": [{}],
    "ddp": [
        {"hook": "powersgd", "powersgd_rank": 4, "bucket_mb": 5},
        {"local_sgd": {"every": 8}, "static_graph": True},
    ],
    "ring": [{"wire": "bf16", "error_feedback": False, "bucket_mb": 3}],
    "ps": [{"servers": 2, "mode": "ssp", "staleness": 3, "push": "updates", "local_steps": 4}],
    "fsdp": [{"replicas": 2, "reshard": False}],
    "zero": [{"stage": 3, "deepspeed": {"zero_optimization": {"sub_group_size": 1000}}}],
    "pipeline": [{"stages": 2, "split": ["conv2"], "schedule": "gpipe", "micro_batches": 8}],
    "tensor": [{"size": 2, "data": "shard"}],
    "moe": [{"size": 2}],
}
ROWS = [{"name": name, **options} for name, rows in STRATEGIES.items() for options in rows]


def job(strategy: dict[str, Any], workers: int = 4, **more: Any) -> TrainJob:
    return TrainJob.model_validate(
        {
            "kind": "train",
            "name": "elastic",
            "workload": "lenet-5",
            "data": {"source": "digits"},
            "batch_size": 64,
            "strategy": strategy,
            "resources": {"workers": workers, "cpus": 0.5, "launcher": "train"},
            "stop": {"epochs": 3},
            "failure": {"retries": 7, "elastic": {"min": 1, "max": 4}},
            **more,
        }
    )


def test_the_table_has_every_strategy_with_options_of_its_own() -> None:
    union, _ = get_args(Strategy)
    names = {get_args(section.model_fields["name"].annotation)[0] for section in get_args(union)}
    assert names == STRATEGIES.keys()
    for row in ROWS[1:]:
        strategy = job(row).strategy
        assert strategy is not None
        assert strategy != type(strategy)(name=row["name"])


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("strategy", ROWS, ids=lambda row: row["name"])
def test_nothing_changes_but_the_number_of_workers(strategy: dict[str, Any], workers: int) -> None:
    before = job(strategy)
    told = before.model_dump()
    told["resources"]["workers"] = workers
    if strategy["name"] == "single" and workers > 1:
        told["strategy"] = job({"name": "ddp"}).model_dump()["strategy"]
    assert with_workers(before, workers).model_dump() == told


@pytest.mark.parametrize("strategy", ROWS[1:], ids=lambda row: row["name"])
def test_what_shrank_to_one_worker_grows_back_to_what_it_was(strategy: dict[str, Any]) -> None:
    before = job(strategy)
    attempts = before
    for workers in (2, 1, 3, 1, 4):
        attempts = with_workers(attempts, workers)
    assert attempts == before


@pytest.mark.parametrize(
    ("strategy", "allowed"),
    [
        ({"name": "single"}, [4, 2, 1]),
        ({"name": "ddp", "hook": "powersgd", "powersgd_rank": 2}, [4, 2, 1]),
        ({"name": "ring", "wire": "bf16"}, [4, 2]),
        ({"name": "fsdp", "replicas": 2}, [4]),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_numbers_of_workers_keep_the_jobs_own_rules(strategy: dict[str, Any], allowed: list[int]) -> None:
    """64 rows cannot be shared by 3 workers."""
    found = job(strategy, workers=1 if strategy["name"] == "single" else 4)
    assert choices(found) == allowed


def test_as_many_as_there_is_room_for() -> None:
    found = job({"name": "ddp"})
    assert most(found, [{"CPU": 1.0}, {"CPU": 0.5}]) == 2
    assert most(found, [{"CPU": 1.0}, {"CPU": 1.0}]) == 4
    assert most(found, [{"CPU": 0.4}]) == 0
    assert most(found, [{"CPU": 1.0}], held=2) == 4, "workers that have their room need none again"
