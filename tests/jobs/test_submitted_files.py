"""A job's own files on their way to a cluster: found, packed, or told before it waits in the queue."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from dlsys.cli import command as commands
from dlsys.errors import SpecError, UsageError
from dlsys.jobs.package import pack
from dlsys.jobs.submission import Options
from dlsys.jobs.submit import folder_for, of_loaded, travels
from dlsys.spec.load import Loaded, load_any
from dlsys.spec.script.load import LoadedScript

JOB = """
kind: train
name: mine
workload: {workload}
data: {{source: csv, path: {path}, target: y}}
batch_size: 4
stop: {{epochs: 1}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    made = tmp_path / "project"
    (made / "exp").mkdir(parents=True)
    (made / "data").mkdir()
    (made / "data" / "t.csv").write_text("x,y\n1,0\n2,1\n")
    (made / "exp" / "own.py").write_text("class Net: ...\n")
    monkeypatch.chdir(made)
    return made


def loaded(folder: Path, path: str = "../data/t.csv", workload: str = "softmax-regression") -> Loaded:
    file = folder / "exp" / "job.yaml"
    file.write_text(JOB.format(path=path, workload=workload))
    found = load_any(file, there="relative")
    assert isinstance(found, Loaded)
    return found


def test_what_travels(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert travels(loaded(project)) == [project / "data" / "t.csv"]
    assert travels(loaded(project, "/data/of/the/nodes.csv")) == []
    monkeypatch.chdir(project / "exp")
    assert travels(loaded(project, workload="own:Net")) == [project / "exp/own.py", project / "data/t.csv"]


def test_a_relative_file_that_is_not_there_is_told_at_once(project: Path) -> None:
    with pytest.raises(SpecError, match=r"data\.path: no such file: \.\./data/u\.csv"):
        loaded(project, "../data/u.csv")


def test_the_folder_is_this_one_or_the_jobs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = loaded(project)
    used = travels(job)
    assert folder_for(job, None, used) == Path()
    assert folder_for(job, project, used) == project
    with pytest.raises(UsageError) as found:
        folder_for(job, project / "exp", used)
    assert f"{project}/data/t.csv: the job uses it, and it lies outside of {project}/exp" in str(found.value)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(UsageError) as found:
        folder_for(job, None, used)
    assert "--working-dir" in found.value.hint
    (project / "exp" / "t.csv").write_text("x,y\n1,0\n2,1\n")
    beside = loaded(project, "t.csv")
    assert folder_for(beside, None, travels(beside)) == project / "exp"
    sent = of_loaded(beside, Options(folder=project / "exp"))
    assert '"folder": "."' in sent["files"]["record.json"]


@pytest.mark.parametrize("rule", ["*.csv", "data/", "data/t.csv"])
def test_a_file_that_git_ignores_is_told_at_once(rule: str, project: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", project], check=True)
    (project / ".gitignore").write_text(f"{rule}\n")
    used = travels(loaded(project))

    def packed() -> int:
        return pack(project, tmp_path / "p.zip", limit_mb=10, note=print, wanted=used).files

    with pytest.raises(UsageError) as found:
        packed()
    assert "data/t.csv: the job uses it, and it would not be packed: git ignores it" in str(found.value)
    assert "!data/t.csv" in found.value.hint
    (project / ".dlsysignore").write_text("!data/t.csv\n")
    assert packed()


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["python show.py --epochs 3"], "is one word, and would be looked for as a program of that name"),
        (["python", "shwo.py", "--epochs", "3"], "no such file: shwo.py in "),
        (["python3", "-u", "shwo.py"], "no such file: shwo.py in "),
        (["./train.sh"], "no such file: ./train.sh in "),
    ],
)
def test_what_a_shell_would_not_find_is_told(command: list[str], said: str, project: Path) -> None:
    (project / "show.py").touch()
    with pytest.raises(SpecError) as found:
        commands.load("submit", [], command, "x", [], project)
    assert said in str(found.value)


@pytest.mark.parametrize(
    "command",
    [
        ["python", "show.py", "3"],
        ["python", "-m", "module", "a.py"],
        ["python", "-c", "print(1)"],
        ["python", "/on/the/nodes.py"],
        ["echo", "a b"],
        ["nvidia-smi"],
    ],
)
def test_what_may_run_is_sent(command: list[str], project: Path) -> None:
    (project / "show.py").touch()
    job = commands.load("submit", [], command, "x", [], project)
    assert job.job.command == tuple(command)
    used = travels(job)
    assert used == [project, *([project / "show.py"] if "show.py" in command else [])]
    assert folder_for(job, None, used) == Path()


def test_a_scripts_file_is_packed_with_its_folder(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / "exp" / "show.py").touch()
    file = project / "exp" / "script.yaml"
    text = "kind: script\nname: s\ncommand: [python, show.py]\nresources: {workers: 2, cpus: 0.5}\n"
    file.write_text(f"{text}failure: {{retries: 2}}\n")
    job = load_any(file, there="relative")
    assert isinstance(job, LoadedScript)
    assert folder_for(job, None, travels(job)) == Path()
    sent = of_loaded(job, Options())
    assert '"folder": "exp"' in sent["files"]["record.json"]
    assert (sent["kind"], sent["bundles"], sent["retries"]) == ("script", [{"CPU": 0.5}] * 2, 2)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert folder_for(job, None, travels(job)) == project / "exp"
    with pytest.raises(UsageError, match="it lies outside of"):
        folder_for(job, tmp_path / "elsewhere", travels(job))
