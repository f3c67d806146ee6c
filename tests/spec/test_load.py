"""Overrides, and what `load` hands back. Wrong files are in `bad/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from dlsys.errors import Problem, SpecError, UsageError
from dlsys.spec import TrainJob, load
from dlsys.spec.earlier import as_now
from dlsys.spec.section import Condition, Interval

GOOD = """\
kind: train
name: good
workload: lenet-5
data: {source: digits}
batch_size: 64
optimizer:
  name: sgd
  lr: 0.1
  momentum: 0.9
regularize:
  - {name: l1, strength: 1.0e-4}
  - {name: max-norm, limit: 3}
stop: {epochs: 1}
"""

JOBS = Path(__file__).parents[2] / "jobs"


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


def problems(path: Path, *overrides: str) -> list[Problem]:
    with pytest.raises(SpecError) as caught:
        load(path, overrides)
    return caught.value.problems


def test_a_loaded_job_has_its_defaults_filled_in(good: Path) -> None:
    loaded = load(good)
    assert isinstance(loaded.job, TrainJob)
    assert loaded.job.strategy is not None
    assert loaded.job.strategy.name == "single"
    assert loaded.job.model["width"] == 1.0
    assert loaded.job.checkpoint.every == Interval(1, "epoch")
    assert loaded.source == GOOD
    assert loaded.path == good.resolve()


def test_several_workers_mean_ddp(good: Path) -> None:
    job = load(good, ["resources.workers=2"]).job
    assert job.strategy is not None
    assert job.strategy.name == "ddp"


def test_overrides_are_read_as_yaml(good: Path) -> None:
    overrides = [
        "optimizer.lr=1e-3",
        "model.width=2",
        "stop={epochs: 3, time: 10 minutes}",
        "checkpoint.best=valid/accuracy",
        "tracking.uri=http://localhost:5000",
        "tracking.experiment='7'",
        "gradient.clip_norm=",
    ]
    loaded = load(good, overrides)
    assert loaded.overrides == tuple(overrides)
    assert loaded.job.optimizer.lr == 1e-3
    assert loaded.job.model["width"] == 2.0
    assert (loaded.job.stop.epochs, loaded.job.stop.time) == (3, 600.0)
    assert loaded.job.tracking.uri == "http://localhost:5000"
    assert loaded.job.tracking.experiment == "7"
    assert loaded.job.gradient.clip_norm is None


@pytest.mark.parametrize("value", [">= 0.9", ">=0.9", '">= 0.9"', "'>= 0.9'"])
def test_a_condition_needs_no_second_quotes(good: Path, value: str) -> None:
    job = load(good, [f"stop.target.valid/accuracy={value}"]).job
    assert job.stop.target == {"valid/accuracy": Condition(">=", 0.9)}


def test_later_overrides_win(good: Path) -> None:
    assert load(good, ["seed=1", "seed=2"]).job.seed == 2


def test_an_index_reaches_into_a_list(good: Path) -> None:
    job = load(good, ["regularize.0.strength=1", "regularize.1.limit=4"]).job
    assert job.regularize[0].strength == 1
    assert job.regularize[1].limit == 4


def test_an_override_leaves_an_aliased_twin_alone(tmp_path: Path) -> None:
    path = tmp_path / "twins.yaml"
    path.write_text(
        GOOD.replace("{epochs: 1}", '{epochs: 1, target: &good {valid/accuracy: ">= 0.9"}}')
        + "expect: *good\n"
    )
    job = load(path, ["expect.valid/accuracy='>= 0.5'"]).job
    assert job.expect["valid/accuracy"] == Condition(">=", 0.5)
    assert job.stop.target["valid/accuracy"] == Condition(">=", 0.9)


@pytest.mark.parametrize(
    ("override", "path", "text"),
    [
        ("optimizer.lr=abc", "optimizer.lr", "must be a number above 0, got the text 'abc'"),
        ("optimizer.lr=.nan", "optimizer.lr", ".nan is not a finite number; quote it if you mean text"),
        ("=3", "", "'=3' is not an override: say dotted.path=value"),
        ("a..b=1", "", "'a..b=1' is not an override: say dotted.path=value"),
        ("seed", "", "'seed' is not an override: say dotted.path=value"),
        (".=1", "", "'.=1' is not an override: say dotted.path=value"),
        (
            "optimizer.nesterv=true",
            "optimizer.nesterv",
            "unknown key: sgd has no 'nesterv'. Did you mean 'nesterov'?",
        ),
        ("optimzer.lr=1", "optimzer", "unknown key. Did you mean 'optimizer'?"),
        ("resources.disks=1", "resources.disks", "unknown key. Known: cpus, gpus, launcher, workers"),
        ("batch_size.x=1", "batch_size", "is 64 and has no 'x' inside"),
        ("regularize.2.strength=1", "regularize", "is a list of 2: '2' is no index (from 0) into it"),
        ("regularize.-1.strength=1", "regularize", "is a list of 2: '-1' is no index (from 0) into it"),
        ("regularize.x=1", "regularize", "is a list of 2: 'x' is no index (from 0) into it"),
        (f"regularize.{'9' * 5000}=1", "regularize", "is a list of 2:"),
        ("regularize.0.strength=-1", "regularize[0].strength", "must be a number above 0, got -1"),
        ("regularize.0=l1", "regularize[0]", "must be a mapping, say {name: l1}, got 'l1'"),
        ("schedule={name: one-cycle}", "schedule.max_lr", "is required and missing: a number above 0"),
        (
            "schedule={name: one-cycle",
            "schedule",
            "'{name: one-cycle': not YAML: while parsing a flow mapping",
        ),
        ("seed=!!int 3", "seed", "'!!int 3': the tag '!!int': tags are not allowed, write plain values"),
        ("seed=*a", "seed", "'*a': the alias *a has no anchor before it, or lies inside it"),
        ("batch_size=65", "batch_size", "must be"),
        (f"model{'.a' * 5000}=1", "", "'model.a.a"),
        ("kind=tune", "kind", "must be 'train' or 'rl', got 'tune'"),
        ("seed=\udcff", "seed", "'\\udcff': the character U+DCFF is not allowed"),
        ("\udcff=1", "", "'\\udcff=1' is not an override: say dotted.path=value"),
        ("model.\n=1", "", "'model.\\n=1' is not an override: say dotted.path=value"),
    ],
)
def test_a_bad_override_is_named(good: Path, override: str, path: str, text: str) -> None:
    if override == "batch_size=65":
        good.write_text(GOOD + "resources: {workers: 2}\n")
        text = "65 rows cannot be shared equally by 2 workers: use a multiple of 2, such as 64 or 66"
    [problem] = problems(good, override)
    assert (problem.file, problem.line, problem.path) == ("command line", 0, path)
    assert problem.text.startswith(text)
    assert str(problem).startswith("command line: ")
    str(problem).encode("utf-8")


def test_another_optimizer_lacks_the_old_ones_options(good: Path) -> None:
    [problem] = problems(good, "optimizer.name=adam")
    assert (problem.line, problem.path) == (9, "optimizer.momentum")
    known = "betas, eps, groups, lr, name, weight_decay"
    assert problem.text == f"unknown key: adam has no 'momentum'. Known: {known}"


def test_an_override_replaces_a_broken_value(good: Path) -> None:
    good.write_text(GOOD.replace("lr: 0.1", "lr: [fast]"))
    assert load(good, ["optimizer.lr=0.2"]).job.optimizer.lr == 0.2


def test_problems_of_file_and_command_line_come_together(good: Path) -> None:
    good.write_text(GOOD.replace("batch_size: 64", "batch_size: 0") + "sed: 1\n")
    found = problems(good, "optimizer.lr=0", "x")
    assert [(problem.file == "command line", problem.line, problem.path) for problem in found] == [
        (False, 5, "batch_size"),
        (False, 14, "sed"),
        (True, 0, ""),
        (True, 0, "optimizer.lr"),
    ]


def test_overrides_of_no_mapping_are_harmless(good: Path) -> None:
    good.write_text("[1]\n")
    [problem] = problems(good, "seed=1")
    assert problem.text == "a job file is a mapping of keys to values, not a list of 1"


@pytest.mark.parametrize("name", ["missing.yaml", "", "a\0b.yaml", "\udcff.yaml", "x" * 5000])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot be read") as caught:
        load(os.path.join(tmp_path, name))
    assert caught.value.exit_code == 2


def test_a_rule_is_left_out_when_one_of_its_sides_is_broken(good: Path) -> None:
    good.write_text(GOOD.replace("batch_size: 64", "batch_size: 65") + "resources: {workers: two}\n")
    [problem] = problems(good)
    assert problem.path == "resources.workers"


def test_a_rule_is_left_out_when_a_value_could_not_be_read(good: Path) -> None:
    good.write_text(GOOD.replace("{epochs: 1}", "{epochs: .inf}"))
    [problem] = problems(good)
    assert problem.path == "stop.epochs"


def test_too_many_problems_are_cut_and_it_is_said(good: Path) -> None:
    good.write_text(GOOD + "expect:\n" + "".join(f"  valid/m{n}: 1\n" for n in range(2000)))
    found = problems(good)
    assert found[0].text == "has more problems; here are the first 100"
    assert len(found) == 101


class TestOwnWorkload:
    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def job(self, good: Path, workload: str) -> Path:
        good.write_text(GOOD.replace("lenet-5", workload).replace("{epochs: 1}", "{steps: 1e3}"))
        return good

    def test_is_looked_up_without_running_it(self, good: Path, tmp_path: Path) -> None:
        (tmp_path / "my_net.py").write_text("raise RuntimeError\n\nclass Net: ...\n")
        job = load(self.job(good, "my_net:Net")).job
        assert job.stop.steps == 1000

    def test_in_a_package(self, good: Path, tmp_path: Path) -> None:
        (tmp_path / "my_package").mkdir()
        (tmp_path / "my_package" / "net.py").write_text("def make(): ...\n")
        assert load(self.job(good, "my_package.net:make")).job.workload == "my_package.net:make"

    @pytest.mark.parametrize(
        ("workload", "text"),
        [
            ("my_net:make_met", "my_net.py defines no 'make_met'. Did you mean 'make_net'?"),
            ("my_nets:Net", "no module 'my_nets' in "),
            ("__main__:Net", "no module '__main__' in "),
            ("broken:Net", "broken.py:1: cannot be read: "),
            ("my_net:Net()", "'my_net:Net()' is not package.module:Class or module:function"),
            (f"{'a' * 3000}:Net", "no module 'aaa"),
        ],
    )
    def test_is_reported(self, good: Path, tmp_path: Path, workload: str, text: str) -> None:
        (tmp_path / "my_net.py").write_text("def make_net(): ...\n")
        (tmp_path / "broken.py").write_text("class Net(:\n")
        [problem] = problems(self.job(good, workload))
        assert problem.path == "workload"
        assert text in problem.text


def test_a_job_of_an_earlier_version_is_read_as_of_now() -> None:
    now = load(JOBS / "generate" / "gan.yaml").job.model_dump(mode="json")
    data = {key: value for key, value in now["data"].items() if key != "prefetch"}  # as if that were new
    before = {**now, "data": data, "model": {**now["model"], "modes": 8, "radius": 2.0, "sigma": 0.1}}
    assert as_now(before) == now
    assert as_now({**before, "seed": 1}) == {**now, "seed": 1}
    assert as_now({"kind": "train", "workload": "gone"}) == {"kind": "train", "workload": "gone"}
