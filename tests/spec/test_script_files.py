"""`kind: script`: what its schema takes, how a command is called, and that its words stay."""

from __future__ import annotations

from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from dlsys.errors import SpecError, UsageError
from dlsys.spec import LoadedScript, load, load_any, yaml
from dlsys.spec.schema import script_schema
from dlsys.spec.script.load import name_of, of_command

VALIDATOR = Draft202012Validator(script_schema())
GOOD = {"kind": "script", "name": "good", "command": ["python", "train.py", "--lr", "0.1"]}


def test_the_schema_agrees_with_the_reader(tmp_path: Path) -> None:
    Draft202012Validator.check_schema(script_schema())
    (tmp_path / "train.py").write_text("")
    file = tmp_path / "job.yaml"
    for change, good in [
        ({}, True),
        ({"env": {"SEED": "1"}, "expect": {"loss": "< 1"}, "resources": {"workers": 2}}, True),
        ({"command": []}, False),
        ({"command": ["python", 1]}, False),
        ({"command": "python train.py"}, False),
        ({"failure": {"retries": -1}}, False),
        ({"env": {"SEED": 1}}, False),
        ({"batch_size": 64}, False),
    ]:
        file.write_text(yaml.dump(GOOD | change))
        assert VALIDATOR.is_valid(GOOD | change) is good, change
        if good:
            assert isinstance(load_any(file), LoadedScript)
        else:
            with pytest.raises(SpecError):
                load_any(file)


def test_every_field_is_described() -> None:
    schema = script_schema()
    sections = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    for name, field in [pair for section in sections for pair in section["properties"].items()]:
        assert field.get("description", "").endswith("."), name


@pytest.mark.parametrize(
    ("command", "name"),
    [
        (["python", "train.py", "--lr", "0.1"], "train"),
        (["python", "-u", "src/My Train_2.py"], "my-train-2"),
        (["python", "-m", "my_package.train", "--file", "x.py"], "my-package-train"),
        (["./run.sh"], "run"),
        (["/usr/bin/make", "all"], "make"),
        (["python", "-c", "pass"], "python"),
        (["übung.py"], "bung"),
        (["日本.py"], "script"),
    ],
)
def test_a_command_is_called_as_what_it_runs(command: list[str], name: str) -> None:
    assert name_of(command) == name


def test_words_stay_as_they_were_said(tmp_path: Path) -> None:
    """Text that YAML would take for something else comes back as text."""
    words = ["prog", "1e-3", "no", "null", "a: b", "- x", "#", "", "[1]", "日本", "it's", "two\nlines"]
    loaded = of_command(words, None, ["resources.workers=3", "tracking.experiment=e"], tmp_path)
    (tmp_path / "spec.yaml").write_text(yaml.dump(loaded.job.model_dump(mode="json")))
    again = load_any(tmp_path / "spec.yaml")
    assert isinstance(again, LoadedScript)
    assert again.job == loaded.job
    assert again.job.command == tuple(words)
    assert (again.job.resources.workers, again.job.failure.retries) == (3, 0)


def test_what_only_trains_refuses_it_by_kind(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text(yaml.dump(GOOD))
    with pytest.raises(UsageError, match=r"is a script; a job is wanted here \(kind: train or rl\)"):
        load(tmp_path / "job.yaml")
    sweep = {"kind": "sweep", "name": "s", "job": "job.yaml", "metric": "valid/loss", "trials": 1}
    (tmp_path / "train.py").write_text("")
    (tmp_path / "sweep.yaml").write_text(yaml.dump(sweep | {"space": {"env.SEED": {"choice": ["1"]}}}))
    with pytest.raises(SpecError, match="kind: must be 'train' or 'rl', got 'script'"):
        load_any(tmp_path / "sweep.yaml")
