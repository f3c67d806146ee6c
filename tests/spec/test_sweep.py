"""What `load_any` makes of a sweep. Wrong sweeps are in `bad/sweep_*`, spaces in `test_space`."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from dlsys.errors import Problem, SpecError, UsageError
from dlsys.spec import LoadedSweep, load, load_any, yaml
from dlsys.spec.load import check, check_sweep
from dlsys.spec.schema import sweep_schema
from dlsys.spec.section import Condition

ROOT = Path(__file__).parents[2]
READY = sorted(ROOT.glob("tune/**/*.yaml"))
JOB = """\
kind: train
name: good
workload: lenet-5
data: {source: digits}
batch_size: 64
optimizer: {name: sgd, lr: 0.1, momentum: 0.9}
stop: {epochs: 3}
tracking: {experiment: ours, log_every: 5}
expect: {test/accuracy: ">= 0.9"}
"""
SWEEP = """\
kind: sweep
name: good
job: jobs/job.yaml
overrides: {stop.epochs: 9, resources: {workers: 2}}
metric: valid/accuracy
space:
  optimizer.lr: {log_uniform: [1.0e-4, 1.0]}
  batch_size: {int: [16, 64], step: 16}
  regularize:
    choice:
      - []
      - - {name: l1, strength: {log_uniform: [1.0e-6, 0.01]}}
searcher: {name: tpe, startup: 5}
scheduler: {name: asha, max: 9 epochs, grace: 1 epoch, reduction: 3}
points: [{optimizer.lr: 0.01, batch_size: 64}]
trials: 20
"""


@pytest.fixture
def good(tmp_path: Path) -> Path:
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "job.yaml").write_text(JOB)
    path = tmp_path / "sweep.yaml"
    path.write_text(SWEEP)
    return path


def sweep_of(path: Path, *overrides: str) -> LoadedSweep:
    loaded = load_any(path, overrides)
    assert isinstance(loaded, LoadedSweep)
    return loaded


def problems(path: Path, *overrides: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        load_any(path, overrides)
    return caught.value.problems


def test_a_loaded_sweep_has_its_defaults_filled_in(good: Path) -> None:
    loaded = sweep_of(good)
    sweep = loaded.sweep
    assert sweep.mode == "max", "the card says that the largest accuracy is the best"
    assert (sweep.concurrent, sweep.retries, sweep.seed) == ("auto", 2, 0)
    assert sweep.space["batch_size"] == {"int": [16, 64], "step": 16, "log": False}
    assert sweep.searcher.model_dump() == {
        "name": "tpe",
        "startup": 5,
        "candidates": 24,
        "warm_start": (),
    }
    assert sweep.tracking is not None
    assert (sweep.tracking.experiment, sweep.tracking.log_every) == ("ours", 5)
    assert (loaded.path, loaded.source) == (good.resolve(), SWEEP)


def test_random_and_fifo_are_the_defaults(good: Path) -> None:
    good.write_text("".join(line for line in SWEEP.splitlines(True) if not line.startswith(("sea", "sch"))))
    sweep = sweep_of(good).sweep
    assert (sweep.searcher.name, sweep.scheduler.name) == ("random", "fifo")


def test_the_smallest_loss_is_the_best(good: Path) -> None:
    assert sweep_of(good, "metric=valid/loss").sweep.mode == "min"
    assert sweep_of(good, "metric=valid/loss", "mode=min").sweep.mode == "min"


def test_the_job_has_the_overrides(good: Path) -> None:
    loaded = sweep_of(good, "tracking.experiment=search", "overrides.data.valid=0.2")
    job = loaded.job.job
    assert (job.stop.epochs, job.resources.workers, job.optimizer.lr) == (9, 2, 0.1)
    assert job.strategy is not None
    assert job.strategy.name == "ddp"
    assert job.data.valid == 0.2
    assert (job.tracking.experiment, job.tracking.log_every) == ("search", 5)
    assert job.expect == {"test/accuracy": Condition(">=", 0.9)}
    assert loaded.job.source == JOB
    assert loaded.job.path == good.parent.resolve() / "jobs" / "job.yaml"


def test_a_trial_is_the_job_with_its_settings(good: Path) -> None:
    loaded = sweep_of(good)
    settings = {
        "optimizer.lr": 0.5,
        "batch_size": 32,
        "regularize": [{"name": "l1", "strength": 1e-3}],
    }
    trial = loaded.trial(settings)
    assert (trial.job.optimizer.lr, trial.job.batch_size) == (0.5, 32)
    assert trial.job.regularize[0].name == "l1"
    assert (trial.job.stop.epochs, loaded.job.job.batch_size) == (9, 64)
    # The command line `dlsys run jobs/job.yaml …` with the trial's overrides gives the same job.
    assert load(good.parent / "jobs" / "job.yaml", trial.overrides).job == trial.job
    with pytest.raises(SpecError, match="63 rows cannot be shared equally by 2 workers"):
        loaded.trial(settings | {"batch_size": 63})


def test_what_trials_are_built_on_is_written_without_defaults(good: Path) -> None:
    """A file of it builds the same: a default of one optimizer, or of one worker, is in no other's way."""
    good.write_text(SWEEP.replace("resources: {workers: 2}", "optimizer: {name: sgd, lr: 0.1}"))
    varied = "{optimizer.name: {choice: [sgd, adam]}, resources.workers: {choice: [1, 2]}}"
    loaded = sweep_of(good, f"space={varied}", "points=[]")
    assert loaded.written["optimizer"] == {"name": "sgd", "lr": 0.1}
    assert "strategy" not in loaded.written
    (good.parent / "trained.yaml").write_text(yaml.dump(loaded.written))
    again = sweep_of(good, f"space={varied}", "points=[]", "job=trained.yaml", "overrides={}")
    for name in ("sgd", "adam"):
        for workers in (1, 2):
            settings = {"optimizer.name": name, "resources.workers": workers}
            assert again.build(settings) == loaded.build(settings)


def test_what_is_drawn_replaces_the_whole_section(good: Path) -> None:
    choice = "space={optimizer: {choice: [{name: adam, lr: {log_uniform: [1e-4, 0.1]}}, {name: sgd}]}}"
    loaded = sweep_of(good, choice, "points=[]")
    job = loaded.trial({"optimizer": {"name": "adam", "lr": 0.01}}).job
    assert job.optimizer.name == "adam", "the job's momentum, which adam has not, is gone"


def test_a_key_of_the_space_is_one_key_on_the_command_line(good: Path) -> None:
    space = sweep_of(good, "space.model.width={uniform: [0.5, 2]}").sweep.space
    assert space["model.width"] == {"uniform": [0.5, 2.0], "step": None}
    assert "model" not in space
    [problem] = problems(good, "space.model.widht={uniform: [0.5, 2]}")
    assert str(problem).startswith("command line: space.model.widht: unknown key: lenet-5 has no 'widht'.")


def test_a_space_may_take_up_what_the_job_leaves_out(good: Path) -> None:
    space = "space={schedule: {choice: [{name: constant}, {name: one-cycle, max_lr: {uniform: [0.1, 1]}}]}}"
    assert sweep_of(good, space, "points=[]").trial({"schedule": {"name": "constant"}})


def test_each_workload_of_a_space_must_measure_the_metric(good: Path) -> None:
    assert sweep_of(good, "space={workload: {choice: [lenet-5, resnet]}}", "points=[]")
    job = good.parent / "jobs" / "job.yaml"
    job.write_text(JOB.replace("lenet-5", "json.decoder:JSONDecoder"))  # measures what nobody knows
    both = "space={workload: {choice: ['json.decoder:JSONDecoder', lenet-5]}}"
    [problem] = problems(good, both, "points=[]", "metric=valid/bleu", "mode=max")
    assert problem.path == "space.workload.choice[1]"
    assert "lenet-5 has no metric 'valid/bleu' here" in problem.text


def test_an_end_and_a_rule_between_two_sections(good: Path) -> None:
    curve = "overrides.schedule={name: cyclical-lr, max_lr: 0.5}"
    [problem] = problems(good, curve)
    assert (problem.line, problem.path) == (7, "space.optimizer.lr.log_uniform[1]")
    assert problem.text == (
        "with this value, the job is wrong at schedule.max_lr: "
        "optimizer.lr < max_lr must hold, but got 1 and 0.5"
    )


def test_two_keys_that_fit_together_only(good: Path) -> None:
    """An end is tried with the other keys drawn: against the job's own max_lr, it would be refused."""
    good.write_text(SWEEP.replace("  batch_size:", "  schedule.max_lr: {uniform: [2, 3]}\n  batch_size:"))
    assert sweep_of(good, "overrides.schedule={name: cyclical-lr, max_lr: 0.5}", "points=[]")


def test_points_are_tried_on_the_job(good: Path) -> None:
    shares = "{data.valid: {uniform: [0.1, 0.51]}, data.test: {uniform: [0.1, 0.51]}}"
    assert sweep_of(good, f"space={shares}", "points=[{data.valid: 0.4, data.test: 0.5}]")
    [problem] = problems(good, f"space={shares}", "points=[{}, {data.valid: 0.51, data.test: 0.5}]")
    assert problem.path == "points[1]"
    assert problem.text == (
        "makes the job wrong at data.valid: valid + test must leave rows to train on, but got 0.51 + 0.5"
    )


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ("scheduler={name: successive-halving, max: 3 epochs}", "scheduler.max"),
        ("scheduler={name: median, grace: 2 epochs}", ""),
        ("scheduler={name: pbt, mutate: [optimizer.lr]}", "searcher.name"),
        ("scheduler={name: hyperband, max: 9 epochs}", ""),
        ("overrides.evaluate=2 epochs", "scheduler.grace"),
        ("overrides.evaluate=50 steps", "scheduler.grace"),
        ("searcher={name: gp, xi: 0.1}", ""),
        ("searcher={name: grid, per_range: 2}", ""),  # 2 × 2 × 3 and a point
        ("searcher={name: grid, per_range: 3}", "trials"),  # 3 × 3 × 4 and a point
        ("metric=test/loss", "metric"),
        ("metric=train/loss", "metric"),
        ("concurrent=0", "concurrent"),
        ("concurrent=3", ""),
        ("points=[{optimizer.lr: 2}]", "points[0].optimizer.lr"),
        ("job=jobs", "job"),
        ("space={}", "space"),
        ("overrides.seed=-1", "overrides.seed"),
        ("tracking={log_every: 0}", "tracking.log_every"),
        ("seed=7", ""),
        ("kind=sweeep", "kind"),
    ],
)
def test_a_change(good: Path, change: str, path: str) -> None:
    if path:
        assert [problem.path for problem in problems(good, change)] == [path]
    else:
        assert sweep_of(good, change)


@pytest.mark.parametrize(
    ("space", "searcher", "path"),
    [
        ("optimizer.lr: {choice: [" + "{uniform: [0.1, 0.2]}, " * 200 + "0.3]}", "random", "space"),
        ("optimizer.lr: {choice: [" + ", ".join(f"{n}" for n in range(1, 256)) + "]}", "random", ""),
        ("regularize: {choice: [[" + "{uniform: [0.1, 0.2]}, " * 198 + "]]}", "grid", "trials"),
        ("regularize: {choice: [[" + "{uniform: [0.1, 0.2]}, " * 5000 + "]]}", "random", "space"),
    ],
)
def test_a_space_made_to_hurt(good: Path, space: str, searcher: str, path: str) -> None:
    change = [f"space={{{space}}}", f"searcher={{name: {searcher}}}", "points=[]"]
    if searcher == "grid":
        change[1] = "searcher={name: grid, per_range: 1000}"
    if path:
        assert path in [problem.path for problem in problems(good, *change)]
    else:
        assert sweep_of(good, *change)


def test_problems_of_sweep_and_job_come_together(good: Path) -> None:
    job = good.parent / "jobs" / "job.yaml"
    job.write_text(JOB.replace("lr: 0.1", "lr: fast"))
    good.write_text(SWEEP.replace("trials: 20", "trials: 0").replace("[1.0e-4, 1.0]", "[1, 0.1]"))
    assert [(problem.file, problem.line, problem.path) for problem in problems(good)] == [
        (str(job), 6, "optimizer.lr"),
        (str(good), 7, "space.optimizer.lr.log_uniform"),
        (str(good), 16, "trials"),
    ]


def test_a_sweep_where_a_job_is_wanted(good: Path) -> None:
    with pytest.raises(UsageError, match="is a sweep; a job is wanted here") as caught:
        load(good)
    assert caught.value.exit_code == 2


def test_a_sweep_is_no_job(good: Path) -> None:
    with pytest.raises(SpecError, match="kind: must be 'train' or 'rl', got 'sweep'"):
        check(yaml.read(SWEEP, "sweep.yaml"))


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_what_is_shown_is_the_same_sweep(path: Path) -> None:
    sweep = sweep_of(path).sweep
    text = yaml.dump(sweep.model_dump(mode="json"))
    assert check_sweep(yaml.read(text, str(path)), text).sweep == sweep


SCHEMA = sweep_schema()
VALIDATOR = Draft202012Validator(SCHEMA)


def test_the_schema_is_valid_and_takes_sweeps() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    for path in READY:
        VALIDATOR.validate(yaml.read(path.read_bytes(), path.name).data)
    VALIDATOR.validate(yaml.read(SWEEP, "sweep.yaml").data)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "train"},
        {"trials": 0},
        {"space": {}},
        {"space": {"optimizer.lr": 0.1}},
        {"space": {"optimizer.lr": {"log_unifrom": [0.1, 1]}}},
        {"space": {"optimizer.lr": {"uniform": [0.1]}}},
        {"space": {"optimizer.lr": {"choice": []}}},
        {"searcher": {"startup": 3}},
        {"scheduler": {"name": "asha", "max": "27 steps"}},
        {"scheduler": {"name": "pbt"}},
        {"concurrent": "all"},
        {"unknown": 1},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(change: dict[str, Any]) -> None:
    assert not VALIDATOR.is_valid(yaml.read(SWEEP, "sweep.yaml").data | change)


def test_every_field_is_described_in_a_sentence() -> None:
    for name, section in [("", SCHEMA), *SCHEMA["$defs"].items()]:
        if section.get("additionalProperties") is False:
            for field, value in section["properties"].items():
                text = value.get("description", "")
                assert text.endswith((".", "`.")), f"{name} {field}: {text!r}"


PLACE = re.compile(r"^[^:]+(:\d+)?: .")
values = st.recursive(
    st.sampled_from(
        [None, True, 0, -1, 0.5, 10**9, 10**13, 1e300, 5e-324, "", "a.b", "1 epoch", "valid/loss", "sgd"]
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["name", "lr", ".", "a[0]", "optimizer.lr", "step"]), inner, max_size=3
        )
        | inner.map(lambda value: {"choice": [value, 1]})
        | st.sampled_from(["uniform", "log_uniform", "int"]).flatmap(
            lambda word: st.lists(inner, min_size=2, max_size=2).map(lambda ends: {word: ends})
        )
    ),
    max_leaves=5,
)


def places(node: Any, path: yaml.Path = ()) -> list[yaml.Path]:
    inside = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [place for key, value in inside for place in places(value, (*path, key))]


DATA = yaml.read(SWEEP, "sweep.yaml").data


@settings(
    max_examples=200,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.sampled_from(places(DATA)), values)
def test_any_sweep_loads_or_is_refused_in_lines_that_name_their_place(
    good: Path, path: yaml.Path, value: Any
) -> None:
    data = node = copy.deepcopy(DATA)
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    text = yaml.dump(data)
    try:
        check_sweep(yaml.read(text, str(good)), text)
    except UsageError as error:
        for line in str(error).splitlines():
            assert PLACE.match(line), line
